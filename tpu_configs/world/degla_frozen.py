"""DeGLA with a frozen teacher in place of its moving average, on the embedded world."""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "degla"
    config.method.options = ConfigDict(dict(teacher="frozen", distill_weight=0.02))
    return config
