"""CLIP-KD on the embedded world: a student of 96 dimensions under the shipped weights of 128.

    python train.py --config=tpu_configs/world/clip_kd.py --workdir=RUN

The student starts from random weights and has a tokenizer of its own.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_student_config()
    config.method.name = "clip_kd"
    return config
