"""Plain CLIP fine-tuning on the embedded world: no hard negatives, no teacher; else degla.py."""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "clip"
    return config
