"""CLIP-KD (CVPR 2024, arXiv 2307.12732) on COCO: ViT-L/14 teaches ViT-B/32, the paper's weights.

    python train.py --config=tpu_configs/clip_kd_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. The paper trains from random weights
on 15 million pairs; this starts from the pretrained student.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.teacher["from"] = "openai/clip-vit-large-patch14"
    config.teacher.dtype = "bfloat16"
    config.method.name = "clip_kd"

    config.optimizer.learning_rate = 1e-5
    return config
