"""DeGLA on the shipped small model: composition learnt, classes of the world kept, in minutes.

    python train.py --config=tpu_configs/quickstart.py

Nothing is downloaded: scenes are rendered as they are needed, with hard negatives true by
construction, and the model of weights/world is fine-tuned on the classes called seen. Scores,
before and after, are on scenes and classes that it was not fine-tuned on, too.
"""

from pathlib import Path

from ml_collections import ConfigDict

from tpu_configs import base

WEIGHTS = Path(__file__).parents[1] / "weights" / "world"


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 32
    config.total_steps = 400
    config.log_every_steps = 20

    config.model.name = "world"
    config.model.unroll_layers = True
    config.init["from"] = str(WEIGHTS)

    config.method.name = "degla"
    # The paper's decay is for 12,000 steps; a teacher of hundreds has to follow faster.
    config.method.options = ConfigDict(dict(ema_decay=0.996))

    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 40
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "world"
    config.data.options = ConfigDict(dict(length=50_000, nouns="seen", size=48, num_negatives=4))
    config.data.text_rows = ()
    config.data.text_lengths = (24,)  # one, so that the step compiles once
    config.data.crop_scale = (1.0, 1.0)

    config.checkpoint.every_steps = 400
    config.eval.benchmarks = ("world",)
    config.eval.before_and_after = True
    config.eval.world.size = 48
    return config
