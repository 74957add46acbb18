"""Plain CLIP fine-tuning on COCO, the baseline of ARO's table, with NegCLIP's settings.

    python train.py --config=tpu_configs/clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.method.name = "clip"
    return config
