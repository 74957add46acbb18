"""FSC-CLIP (EMNLP 2024) on COCO: ViT-B/32, the paper's batch of 256, 5 epochs, three negatives.

    python train.py --config=tpu_configs/fsc_clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. The negatives are written by rule
(captions/rules.py), as the paper's are.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.method.name = "fsc_clip"

    config.optimizer.learning_rate = 5e-6

    config.data.negatives = "rules"
    config.data.num_negatives = 3
    return config
