"""READ-CLIP's alignment on the embedded world, whose scenes have a second caption for it.

    python train.py --config=tpu_configs/world/read_clip.py --workdir=RUN

Under DeGLA's teacher: --config.method.options.teacher=frozen.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "read_clip"
    config.data.options.paraphrases = 1
    return config
