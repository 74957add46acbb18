"""Plain CLIP from scratch on the embedded world: the weights that quickstart.py starts from.

    python train.py --config=tpu_configs/world/pretrain.py --workdir=RUN

Hardly ever do two captions of a batch differ in their order alone: nothing teaches the model order,
and it becomes the bag of words that real CLIPs are (Yuksekgonul et al. 2023, arXiv 2210.01936).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    return base.get_world_pretrain_config()
