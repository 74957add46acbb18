"""DeGLA learns relations, while the weights before hold plain scenes of further things.

    python train.py --config=tpu_configs/world/relations_held.py --workdir=RUN

Half of a batch are scenes of seen things with hard negatives; half are plain ones, without, of
further things, whose images and captions the teacher holds where they were. Scored are seen things,
and fresh ones, which training never showed. What came of it: docs/results_relations.md.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_world_relations_config()
    config.batch_size = 64
    base.hold_plain_scenes(config, "further", told=1, held=1)
    config.data.text_rows = (0.35, 0.4, 1.0)

    config.method.name = "degla"
    config.method.options = ConfigDict(
        dict(
            contrast_weight=0.0,
            igc_weight=2.0,
            tgc_weight=0.2,
            teacher="frozen",
            distill_negatives=False,
            distill_weight=0.06,
        )
    )
    return config
