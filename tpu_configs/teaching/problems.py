"""Do problems written where a small model is weak help it more than others? GSM8K, any two models.

    python teach.py --config=tpu_configs/teaching/problems.py --config.teach.data=DIR \
        --config.teach.models.student.weights=MODEL --config.teach.models.teacher.weights=MODEL

DIR holds gsm8k_test.jsonl; MODEL is what language/local.py opens.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.teach.paper = "problems"
    config.teach.options = ConfigDict(dict(turns=2, budget=8, tested=100))
    config.teach.baseline = "stateless"
    config.teach.x_label = "turn"
    for name in ("student", "teacher"):
        config.teach.models[name] = ConfigDict(dict(name="local", weights=""))
    return config
