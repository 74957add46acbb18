"""A student of 96 dimensions learns from scratch under the shipped weights of 128, on the embedded
world: another shape and a tokenizer of its own.

    python train.py --config=tpu_configs/world/small_student.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_student_config()
    config.method.name = "degla"
    config.method.options = ConfigDict(dict(teacher="frozen", distill_weight=0.02))
    return config
