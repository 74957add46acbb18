"""Does a teacher find better exemplars by the failures of its students? On LIAR.

    python teach.py --config=tpu_configs/teaching/exemplars.py --config.teach.data=DIR \
        --config.teach.models.student.weights=MODEL --config.teach.models.teacher.weights=MODEL

DIR holds liar_train.jsonl and liar_test.jsonl; MODEL is what language/local.py opens.
Further students are further models, named in --config.teach.options.students:
--config.teach.models.NAME.name=local --config.teach.models.NAME.weights=MODEL.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.teach.paper = "exemplars"
    config.teach.options = ConfigDict(dict(rounds=2, tested=200))
    config.teach.baseline = "one student"
    config.teach.x_label = "round"
    for name in ("student", "teacher"):
        config.teach.models[name] = ConfigDict(dict(name="local", weights=""))
    return config
