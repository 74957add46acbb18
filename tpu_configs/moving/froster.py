"""FROSTER on the embedded clips of moving things: a minute or two on a laptop, nothing downloaded.

    python train.py --config=tpu_configs/moving/froster.py --workdir=RUN
    python -m studies.evidence --study=moving --output=DIR    # and its baselines, several seeds

Trained on things called seen; scored on those (base) and on others (novel).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_moving_config()
    config.method.options = ConfigDict(dict(distill_weight=2.0))
    return config
