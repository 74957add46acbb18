"""Detailed noisy captions or short clean ones? Over the share of false captions, in the world.

python teach.py --config=tpu_configs/teaching/weak_to_strong.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.total_steps = 30
    config.method.name = "clip"
    config.optimizer.learning_rate = 3e-4
    config.teach.paper = "weak_to_strong"
    config.teach.options = ConfigDict(
        dict(scenes=1920, rates=(0.0, 0.5, 1.0), severities=(0.6,), tested=100)
    )
    config.teach.baseline = "short"
    config.teach.x_label = "share of false captions"
    return config
