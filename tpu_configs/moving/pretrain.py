"""The world's model, tuned on single frames of the embedded clips: where FROSTER's study starts.

    python train.py --config=tpu_configs/moving/pretrain.py --workdir=RUN

As CLIP comes to action recognition: it knows what single frames show, of every class, and no order.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_pretrain_config()
    config.total_steps = config.checkpoint.every_steps = 600
    config.init["from"] = base.WORLD_WEIGHTS
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 50

    # Half of the batch is what it was pretrained on: it forgets nothing.
    world = config.data.options.to_dict() | dict(source="world", weight=2.0)
    stills = dict(source="stills", weight=1.0, length=100_000)
    config.data.source = "mixture"
    config.data.options = ConfigDict(
        dict(
            length=1_000_000,
            sources=dict(
                world=world,
                seen=stills | dict(nouns="seen", things=96),
                unseen=stills | dict(nouns="unseen", things=154),
            ),
        )
    )
    return config
