"""NegCLIP on the embedded world, all else as in degla.py."""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "negclip"
    return config
