"""FROSTER base to novel on Kinetics-400: ViT-B/16, 8 frames, 12 epochs.

    python train.py --config=tpu_configs/froster_vit_b16_k400_b2n.py --config.data.root=DIR

docs/video.md says what DIR holds, and how to average, score and compare with the baselines.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_froster_b2n_config("zs_label_db/B2N_k400", videos="k400")
    # The first of the three draws of 16 clips a class.
    config.data.options.annotations = "zs_label_db/B2N_k400/train_1.csv"
    return config
