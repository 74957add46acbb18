"""Do exams of its students choose a teacher's answer better than its majority? On MATH.

    python teach.py --config=tpu_configs/teaching/rationales.py --config.teach.data=DIR \
        --config.teach.models.student.weights=MODEL --config.teach.models.teacher.weights=MODEL

DIR holds math181.json; MODEL is what language/local.py opens.
Further students are further models, named in --config.teach.options.students:
--config.teach.models.NAME.name=local --config.teach.models.NAME.weights=MODEL.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.teach.paper = "learn_by_teaching"
    config.teach.options = ConfigDict(dict(problems=20, rationales=8))
    config.teach.baseline = "SC"
    config.teach.x_label = "rationales"
    for name in ("student", "teacher"):
        config.teach.models[name] = ConfigDict(dict(name="local", weights=""))
    return config
