"""CLIC (NeurIPS 2025) on COCO: ViT-B/32 with its image tower frozen, one epoch of batch 800.

    python train.py --config=tpu_configs/clic_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. Every other batch is of single images
with their first caption. The learning rate starts at 0 and ends there; the paper's has a floor.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.batch_size = 800
    config.epochs = 1

    config.train.learn = ("text/*", "logit_scale")
    config.method.name = "clic"

    config.optimizer.warmup_steps = 20  # a fifth of the epoch
    config.optimizer.eps = 1e-8

    config.data.source = "pairs"
    config.data.options = ConfigDict(dict(of="coco", side=224))
    config.data.crop_scale = (1.0, 1.0)
    config.data.negatives = "rules"
    config.data.negative_types = ("exchange",)
    config.data.num_negatives = 1
    return config
