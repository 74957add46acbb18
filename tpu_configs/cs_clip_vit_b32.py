"""CS-CLIP (2026) on COCO: ViT-B/32, the paper's batch of 128, 5 epochs, 3 of them of warmup.

    python -m captions.units --source=coco --source.root=COCO --out=COCO/units.json
    python train.py --config=tpu_configs/cs_clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. The units are written once, with a
foil each; one negative a caption is written by rule (captions/rules.py).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.batch_size = 128

    config.method.name = "cs_clip"

    config.optimizer.learning_rate = 5e-6
    config.optimizer.warmup_epochs = 3
    config.optimizer.weight_decay = 0.01

    config.data.source = "captions"
    config.data.options = ConfigDict(dict(annotations="units.json", images="."))
    config.data.negatives = "rules"
    config.data.num_negatives = 1
    return config
