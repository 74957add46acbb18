"""DeGLA on the embedded world until it tells left from right and above from below.

    python train.py --config=tpu_configs/world/relations_degla.py --workdir=RUN

What came of it, and what it took: docs/results.md.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_relations_config()
    config.method.name = "degla"
    # The paper's constants for another length of run and size of batch, see degla.py.
    config.method.options = ConfigDict(dict(ema_decay=0.998, distill_weight=0.04))
    return config
