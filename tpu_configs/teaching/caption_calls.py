"""Which captions are worth a costly negative? Utility, least margin and random, in the world.

python teach.py --config=tpu_configs/teaching/caption_calls.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.total_steps = 20
    config.method.name = "negclip"
    config.optimizer.learning_rate = 3e-4
    config.data.num_negatives = 2
    config.teach.paper = "caption_calls"
    config.teach.options = ConfigDict(dict(captions=1280, probe=80, budgets=(0.25, 0.5)))
    config.teach.baseline = "random"
    config.teach.x_label = "share of captions asked about"
    return config
