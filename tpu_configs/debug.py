"""A run that is looked into: small, unrolled and in float32 (CONTRIBUTING.md, Debugging).

    python train.py --config=tpu_configs/debug.py --workdir=$(mktemp -d)
    JAX_DISABLE_JIT=True python train.py --config=tpu_configs/debug.py --workdir=$(mktemp -d)

The second runs every operation by itself: print() and breakpoint() stop anywhere in a loss or a
model. Put your method or data into a copy, or name them: --config.method.name=mine.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.batch_size = 8
    config.total_steps = config.checkpoint.every_steps = 2
    config.log_every_steps = 1
    config.log_norms = True

    config.model.name = "tiny"
    layers = dict(width=32, layers=1, heads=2, mlp_width=64)
    config.model.overrides = ConfigDict(
        dict(embed_dim=32, vision=dict(layers, image_size=32), text=dict(layers, context_length=32))
    )
    config.model.unroll_layers = True
    config.model.remat = "none"
    config.model.dtype = "float32"
    config.init["from"] = ""
    config.data.tokenizer = base.WORLD_WEIGHTS
    config.data.text_rows = (1.0,)
    config.data.options.length = 64
    config.data.options.size = 32
    config.optimizer.warmup_steps = 1
    return config
