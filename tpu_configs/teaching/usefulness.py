"""Does the more useful half of a set of hard negatives teach more than a random half? In the world.

python teach.py --config=tpu_configs/teaching/usefulness.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.batch_size, config.total_steps, config.optimizer.warmup_steps = 32, 200, 20
    config.method.name = "degla"
    config.optimizer.learning_rate = 1e-3
    config.data.num_negatives = 1
    config.teach.paper = "usefulness"
    config.teach.options = ConfigDict(dict(drafts=1280, preferred=2048, tested=1000))
    config.teach.baseline = "random"
    config.teach.x_label = "share of the negatives"
    return config
