"""DeGLA on the shipped small model: composition learnt, classes of the world kept, in minutes.

    python train.py --config=tpu_configs/quickstart.py

Nothing is downloaded: scenes are rendered as they are needed, with hard negatives true by
construction, and the model of weights/world is fine-tuned on the classes called seen. Scores,
before and after, are on scenes and classes that it was not fine-tuned on, too.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.total_steps = config.checkpoint.every_steps = 600
    config.model.unroll_layers = True

    config.method.name = "degla"
    # The paper's constants for another length of run and size of batch, see world/degla.py.
    config.method.options = ConfigDict(dict(ema_decay=0.992, distill_weight=0.02))

    config.eval.benchmarks = ("world",)
    config.eval.before_and_after = True
    return config
