"""CLIC on the embedded world: two scenes in one image; only the text tower learns.

python train.py --config=tpu_configs/world/clic.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.train.learn = ("text/*", "logit_scale")
    config.method.name = "clic"
    config.data.source = "pairs"
    config.data.options = ConfigDict(
        dict(
            of="world",
            side=48,
            length=50_000,
            nouns="seen",
            size=48,
            pairs=0.0,  # two captions of a scene of two things would not fit the context
            paraphrases=2,
            num_negatives=0,
        )
    )
    config.data.negatives = "rules"
    config.data.negative_types = ("exchange",)
    config.data.num_negatives = 1
    return config
