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
            # As in pretraining: all but 0.2 % of two captions together fit the context.
            pairs=0.5,
            relations=0.5,
            colours=0.15,
            sizes=0.15,
            paraphrases=2,
            num_negatives=0,
        )
    )
    config.data.text_rows = (0.35, 0.75, 1.0)  # mostly the first for singles, the second for pairs
    config.data.negatives = "rules"
    config.data.negative_types = ("exchange",)
    config.data.num_negatives = 1
    return config
