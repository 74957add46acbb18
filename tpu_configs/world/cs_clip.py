"""CS-CLIP on the embedded world, whose captions come in units, each with a foil.

    python train.py --config=tpu_configs/world/cs_clip.py --workdir=RUN

Under DeGLA's teacher: --config.method.options.teacher=frozen.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "cs_clip"
    config.data.num_negatives = config.data.options.num_negatives = 1
    config.data.options.units = True
    return config
