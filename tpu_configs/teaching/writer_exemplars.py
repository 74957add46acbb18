"""Do failures of three CLIPs find better exemplars for the writer than those of one? In the world.

python teach.py --config=tpu_configs/teaching/writer_exemplars.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.batch_size, config.total_steps, config.optimizer.warmup_steps = 32, 12, 4
    config.method.name = "negclip"
    config.optimizer.learning_rate = 3e-4
    config.data.num_negatives = 1
    config.teach.paper = "writer_exemplars"
    config.teach.options = ConfigDict(dict(captions=384, rounds=2, draws=2, tested=60))
    config.teach.baseline = "one student"
    config.teach.x_label = "round"
    return config
