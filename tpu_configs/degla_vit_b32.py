"""DeGLA (arXiv 2504.16801) on COCO train2014, as in the paper: ViT-B/32, 8 x 32 images a step.

    python train.py --config=tpu_configs/degla_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds degla.json (`[{image_id, original, enhanced}]`) and train2014/.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.method.name = "degla"
    config.method.options = ConfigDict(
        dict(
            igc_weight=0.1,
            tgc_weight=0.1,
            tgc_scale=10.0,
            tgc_mask="paper",
            distill_weight=0.005,
            distill_reduction="sum",
            teacher="ema",
            ema_decay=0.9996,
        )
    )

    config.optimizer.b2 = 0.98
    config.optimizer.eps = 1e-6
    config.optimizer.weight_decay = 0.1

    config.data.source = "degla"
    config.data.num_negatives = 4
    return config
