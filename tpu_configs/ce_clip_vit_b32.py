"""CE-CLIP (arXiv 2306.08832) on COCO: ViT-B/32, 2 x 256 images a step, 5 epochs.

    python train.py --config=tpu_configs/ce_clip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds annotations/captions_train2014.json and train2014/. The paper's negatives come from a
language model; here each slot is one type of captions/types/, masked where it does not apply.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.batch_size = 512

    config.method.name = "ce_clip"
    config.method.options = ConfigDict(
        dict(imc_weight=0.3, cmr_weight=0.2, max_threshold=10.0, num_negatives=5)
    )

    config.optimizer.learning_rate = 5e-6

    config.data.negatives = "rules"
    config.data.num_negatives = 5
    config.data.fill_negatives = False
    return config
