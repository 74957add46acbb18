"""Where is the student weak, and do hard negatives bought there beat a uniform split? In the world.

python teach.py --config=tpu_configs/teaching/data_env.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.total_steps = 24
    config.method.name = "negclip"
    config.optimizer.learning_rate = 3e-4
    config.data.num_negatives = 1
    config.teach.paper = "data_env"
    config.teach.options = ConfigDict(
        dict(
            turns=2,
            budget=384,
            policies=("by error", "uniform", "captions only"),
            tested=100,
        )
    )
    config.teach.baseline = "uniform"
    config.teach.x_label = "turn"
    return config
