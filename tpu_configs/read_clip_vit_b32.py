"""READ-CLIP's alignment (NeurIPS 2025) on COCO: ViT-B/32, batch 256, 5 epochs, three negatives.

    python train.py --config=tpu_configs/read_clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/: every image has several captions. The
negatives are written by rule (captions/rules.py). The paper's decoder term is left out.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.method.name = "read_clip"

    config.optimizer.learning_rate = 1e-5

    config.data.negatives = "rules"
    config.data.num_negatives = 3
    return config
