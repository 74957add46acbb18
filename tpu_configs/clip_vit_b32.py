"""Plain CLIP fine-tuning on COCO, the baseline of ARO's table, with NegCLIP's settings.

    python train.py --config=tpu_configs/clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 256
    config.epochs = 5

    config.model.name = "ViT-B-32-quickgelu"
    config.init["from"] = "openai/clip-vit-base-patch32"
    config.method.name = "clip"

    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 50

    config.data.source = "coco"
    config.data.workers = 8
    return config
