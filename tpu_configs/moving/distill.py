"""Feature distillation without residual heads on the embedded clips, else as froster.py."""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_moving_config()
    config.method.options = ConfigDict(dict(distill_weight=2.0))
    config.model.video.residual_heads = False
    return config
