"""DeGLA without its teacher's distillation on the embedded world: the contrasts alone."""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "degla"
    config.method.options = ConfigDict(dict(distill_weight=0.0, ema_decay=0.988))
    return config
