"""CLIC (NeurIPS 2025) on COCO: ViT-B/32 with its image tower frozen, one epoch of batch 800.

    python train.py --config=tpu_configs/clic_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. Every other batch is of single images
with their first caption.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.batch_size = 800
    config.epochs = 1

    config.train.learn = ("text/*", "logit_scale")
    config.method.name = "clic"

    config.optimizer.init_learning_rate = 1e-7
    config.optimizer.learning_rate = 1e-6
    config.optimizer.end_learning_rate = 1e-8
    config.optimizer.warmup_epochs = 0.2
    config.optimizer.eps = 1e-8

    config.data.source = "pairs"
    config.data.options = ConfigDict(dict(of="coco", side=224))
    config.data.crop_scale = (1.0, 1.0)
    config.data.negatives = "rules"
    config.data.negative_types = ("exchange",)
    config.data.num_negatives = 1
    return config
