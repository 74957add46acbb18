"""FROSTER base to novel on HMDB-51: ViT-B/16, 8 frames, 12 epochs.

    python train.py --config=tpu_configs/froster_vit_b16_hmdb51_b2n.py --config.data.root=DIR

docs/video.md says what DIR holds, and how to average, score and compare with the baselines.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    return base.get_froster_b2n_config("zs_label_db/B2N_hmdb", videos="hmdb51")
