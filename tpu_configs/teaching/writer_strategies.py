"""Does advice make more of a small model's hard negatives pass the checks? On captions of yours.

    python teach.py --config=tpu_configs/teaching/writer_strategies.py --config.data.root=DIR \
        --config.teach.models.student.weights=MODEL --config.teach.models.teacher.weights=MODEL

DIR holds captions.json and images/; MODEL is what language/local.py opens.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.data.source = "captions"
    config.data.options = ConfigDict()
    config.data.test_size = 200
    config.teach.paper = "writer_strategies"
    config.teach.options = ConfigDict(dict(taught=10, tested=20))
    config.teach.baseline = "without"
    config.teach.x_label = "round"
    for name in ("student", "teacher"):
        config.teach.models[name] = ConfigDict(dict(name="local", weights=""))
    return config
