"""What studies/evidence.py compares: methods, learning rates and scores of each study."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Study:
    """Methods that start from the same weights, compared by what they learn and what they keep.

    Attributes:
      title, about: of the page; what the scores mean.
      benchmark: a file of benchmarks/.
      weights: a folder of weights/, where all start.
      variants: name -> (experiment of tpu_configs/, flags of train.py); the first is the one that
        the others are compared with.
      methods: the variants whose frontiers are compared and shown.
      learning_rates: of every variant that `rates` does not name.
      rates: the learning rates of others, such as the one that a development seed found.
      alphas: of WiSE-FT; 1 is the run itself.
      learnt, kept: the two scores of the figure and of the frontiers.
      levels: of what is learnt, at which the frontiers are compared.
      columns: the scores that the tables show.
    """

    title: str
    about: str
    benchmark: str
    weights: str
    variants: Mapping[str, tuple[str, tuple[str, ...]]]
    methods: tuple[str, ...]
    learning_rates: tuple[str, ...]
    alphas: tuple[str, ...]
    learnt: str
    kept: str
    levels: tuple[float, ...]
    columns: tuple[str, ...]
    rates: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def ours(self) -> str:
        return next(iter(self.variants))

    def rates_of(self, variant: str) -> tuple[str, ...]:
        return self.rates.get(variant, self.learning_rates)


def _world(name: str, **options) -> tuple[str, tuple[str, ...]]:
    return f"world/{name}", tuple(f"--config.{key}={value}" for key, value in options.items())


_READ_CLIP = {"method.name": "read_clip", "data.options.paraphrases": 1}
_CS_CLIP = {
    "method.name": "cs_clip",
    "data.num_negatives": 1,
    "data.options.num_negatives": 1,
    "data.options.units": True,
}
_FROZEN = {"method.options.teacher": "frozen"}
RELATIONS = Study(
    title="Swaps and relations on the embedded world",
    about="""\
        Composition is the mean over types of negative and both class splits, seen and fresh;
        retention is zero-shot top-1 on the fresh classes, which training never showed, not even
        to be held.""",
    benchmark="world",
    weights="world",
    variants={
        "degla, further things held": _world("relations_held"),
        "degla": _world("relations_degla"),
        "degla, frozen teacher": _world("relations_degla", **_FROZEN),
        "negclip": _world("relations_negclip"),
        "clip": _world("relations_negclip", **{"method.name": "clip"}),
        "ce_clip": _world("relations_negclip", **{"method.name": "ce_clip"}),
        "fsc_clip": _world("relations_negclip", **{"method.name": "fsc_clip"}),
        "read_clip": _world("relations_negclip", **_READ_CLIP),
        "cs_clip": _world("relations_negclip", **_CS_CLIP),
        "cs_clip, frozen teacher": _world(
            "relations_negclip", **_CS_CLIP, **_FROZEN, **{"method.options.distill_weight": 0.04}
        ),
        "negclip, LoRA": _world("relations_negclip", **{"train.lora.rank": 8}),
        "negclip, text tower": _world(
            "relations_negclip", **{"train.learn": "('text/*','logit_scale')"}
        ),
    },
    methods=(
        *("degla, further things held", "degla", "degla, frozen teacher", "negclip", "ce_clip"),
        *("fsc_clip", "read_clip", "cs_clip", "cs_clip, frozen teacher", "negclip, LoRA"),
        "negclip, text tower",
    ),
    # What the development seed found: docs/results_relations_rates.md.
    learning_rates=("2.5e-4",),
    alphas=("0.5", "0.75", "1"),
    learnt="composition",
    kept="zero_shot_fresh",
    levels=(80, 85, 90),
    rates={
        "degla, further things held": ("1e-3",),
        "ce_clip": ("5e-4",),
        "cs_clip": ("5e-4",),
        "negclip, LoRA": ("1e-3",),
    },
    columns=(
        *("composition", "seen_swaps", "fresh_swaps", "fresh_replace_relation"),
        *("zero_shot_seen", "zero_shot_fresh", "zero_shot_all", "image_to_text_recall@1"),
    ),
)

STUDIES = {
    "world": Study(
        title="Composition on the embedded world",
        about="""\
            Composition is the mean over types of negative and both class splits; retention is
            zero-shot top-1 on the classes that fine-tuning never showed.""",
        benchmark="world",
        weights="world",
        variants={
            "degla": _world("degla"),
            **{name: _world(name) for name in ("clip", "negclip", "ce_clip", "clic")},
            "degla without distillation": _world("igc_tgc"),
            "degla, frozen teacher": _world("degla_frozen"),
            "degla without IGC": _world("degla", **{"method.options.igc_weight": 0.0}),
            "degla without TGC": _world("degla", **{"method.options.tgc_weight": 0.0}),
            "degla, released mask": _world("degla", **{"method.options.tgc_mask": "released"}),
        },
        methods=(
            *("degla", "clip", "negclip", "ce_clip", "clic"),
            *("degla without distillation", "degla, frozen teacher"),
        ),
        learning_rates=("5e-4", "1e-3", "2e-3"),
        alphas=("0.25", "0.5", "0.75", "1"),
        learnt="composition",
        kept="zero_shot_unseen",
        levels=(76, 78, 80, 82),
        columns=(
            *("composition", "unseen_swaps", "unseen_replace_relation", "zero_shot_seen"),
            *("zero_shot_unseen", "zero_shot_all", "image_to_text_recall@1"),
        ),
        rates=dict.fromkeys(
            ("degla without IGC", "degla without TGC", "degla, released mask"), ("1e-3",)
        ),
    ),
    "moving": Study(
        title="Actions in the embedded clips",
        about="""\
            Base are the 24 classes that training showed, novel 24 of other things in the same
            actions, all novel the 308 of every other thing. Pairs are the clips nearer to their own
            action than to the one that no single frame tells from it (chance is 50), things those
            nearest to either. Before is the frozen CLIP, which sees each frame alone.""",
        benchmark="video",
        weights="moving",
        variants={
            "froster": ("moving/froster", ()),
            "plain fine-tuning": ("moving/plain", ()),
            "distillation without heads": ("moving/distill", ()),
            "froster, window 0": ("moving/froster", ("--config.model.video.window=0",)),
        },
        methods=("froster", "plain fine-tuning", "distillation without heads"),
        learning_rates=("3e-4", "1e-3"),
        alphas=("0.5", "1"),
        learnt="base_top1",
        kept="all_novel_top1",
        levels=(60, 70, 80),
        columns=(
            *("base_top1", "novel_top1", "harmonic_mean", "all_novel_top1"),
            *("base_pairs", "novel_pairs", "novel_things", "all_novel_things"),
        ),
        rates={"froster, window 0": ("1e-3",)},
    ),
    "relations": RELATIONS,
    # On a development seed and other scenes, a third of the steps: which rate each is run at.
    "relations_rates": dataclasses.replace(
        RELATIONS,
        title="Learning rates for relations",
        variants={
            name: (config, (*flags, "--config.total_steps=800", "--config.eval.world.seed=7"))
            for name, (config, flags) in RELATIONS.variants.items()
        },
        learning_rates=("2.5e-4", "5e-4", "1e-3"),
        rates={"negclip, LoRA": ("1e-3", "2e-3", "4e-3")},
    ),
}
