"""FROSTER on the embedded clips of moving things: minutes on a laptop, nothing downloaded.

    python train.py --config=tpu_configs/moving_froster.py --workdir=RUN

Trained on things called seen; scored on those (base) and on others (novel). The baselines:

    --config.method.options.distill_weight=0.0                plain fine-tuning
    --config.model.video.residual_heads=False                 distillation without residual heads
    --config.model.video.window=0                             frames apart

and `python eval.py --workdir=weights/world` with this run's config.eval, frozen CLIP.
"""

from pathlib import Path

from ml_collections import ConfigDict

from tpu_configs import base

WEIGHTS = Path(__file__).parents[1] / "weights" / "world"


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 16
    config.total_steps = 200
    config.log_every_steps = 20

    config.model.name = "world"
    config.model.video.window = 1
    config.init["from"] = str(WEIGHTS)

    config.method.name = "froster"
    config.method.options = ConfigDict(dict(distill_weight=2.0))

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.01
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "moving"
    config.data.options = ConfigDict(dict(nouns="seen", part="train", length=10_000))
    config.data.frame_stride = 1
    config.data.jitter = (48, 54)

    config.checkpoint.every_steps = 200
    config.eval.benchmarks = ("video",)
    config.eval.video.source = "moving"
    config.eval.video.frame_stride = 1
    config.eval.video.views = 1
    config.eval.video.sets = ConfigDict(
        dict(
            base=dict(nouns="seen", part="test", length=480),
            novel=dict(nouns="unseen", part="test", length=480),
        )
    )
    return config
