"""NegCLIP (ARO, arXiv 2210.01936) on COCO: ViT-B/32, the paper's batch of 256 and 5 epochs.

    python train.py --config=tpu_configs/negclip_vit_b32.py --config.data.root=COCO --workdir=RUN

COCO holds train_neg_clip.tsv, as ARO publishes it, and the images where its rows say.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_coco_config()
    config.method.name = "negclip"

    config.data.source = "negclip"
    config.data.num_negatives = 1
    return config
