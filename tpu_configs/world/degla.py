"""DeGLA on the embedded world, the paper's run made small; the files beside it change its method.

    python train.py --config=tpu_configs/world/degla.py --workdir=RUN
    python -m studies.evidence --output=DIR    # all of them, several seeds and learning rates

Constants that depend on the length of the run or the size of the batch are the paper's, carried
over: the teacher's memory is the same share of the run (0.9996 a step over 12,000 steps), and the
distillation, a sum over the batch, has the same weight for each example (0.005 at batch 256).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_config()
    config.method.name = "degla"
    config.method.options = ConfigDict(
        dict(
            igc_weight=0.1,
            tgc_weight=0.1,
            tgc_mask="paper",
            teacher="ema",
            ema_decay=0.988,
            distill_weight=0.02,
        )
    )
    return config
