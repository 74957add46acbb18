"""FSC-CLIP on the embedded world.

    python train.py --config=tpu_configs/world/fsc_clip.py --workdir=RUN

Under DeGLA's teacher: --config.method.options.teacher=frozen.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "fsc_clip"
    return config
