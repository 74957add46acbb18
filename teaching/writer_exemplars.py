"""Exemplars for a writer of hard negatives, searched for by what several CLIPs get wrong.

M3 of learning by teaching (arXiv 2406.14629), with CLIPs as students. Exemplars, captions with a
negative each, stand in the writer's prompt. A student learns from what the writer then makes of its
captions, and the exemplars are rewritten for what students still get wrong. A set is worth the
share of its drafts that pass the checks times the accuracy that they bring.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from captions import types
from captions.checks import Pair, rejection
from data.world import TYPES, World
from errors import UserError
from language.base import LanguageModel
from options import Count, check_known
from teaching.base import Item, Record, Student, accuracy, check_enough, rng_of
from teaching.exemplars import Search, language_reflection
from teaching.results import Point

# An exemplar is an Item: the caption is its question, the negative its answer, the type its skill.
Draft = Callable[[Sequence[Record], Sequence[Item]], list[str]]  # (records, exemplars) -> texts


@dataclasses.dataclass(frozen=True)
class Writing:
    """Captions, who writes negatives for them by exemplars, and what these must pass.

    Attributes:
      records: {scene, caption}, see teach.Lend.clip.
      draft: a text for each record.
      passes: (record, text) -> whether it may teach.
    """

    records: Sequence[Record]
    draft: Draft
    passes: Callable[[Record, str], bool]

    def material(self, exemplars: Sequence[Item]) -> tuple[list[Record], float]:
        """The records with the negatives that pass, and the share that does."""
        drafts = self.draft(self.records, exemplars)
        passed = list(map(self.passes, self.records, drafts))
        made = [
            record | {"negatives": [text] * ok}
            for record, text, ok in zip(self.records, drafts, passed, strict=True)
        ]
        return made, float(np.mean(passed))


@dataclasses.dataclass(frozen=True)
class Taught(Student):
    """A student that learns from what is written with its demonstrations before it answers."""

    student: Student
    writing: Writing
    seed: int = 0

    def answer(self, items, demos=(), help=None):
        return self.student.fit(self.writing.material(demos)[0], self.seed).answer(items)

    def worth(self, exemplars: Sequence[Item], items: Sequence[Item]) -> float:
        """The share of drafts that pass, times the gain of accuracy; a loss counts whole."""
        before, after = self.student.answer(items), self.answer(items, exemplars)
        gain = float(np.mean([o.correct for o in after]) - np.mean([o.correct for o in before]))
        return self.writing.material(exemplars)[1] * gain if gain > 0 else gain


def few_shot(model: LanguageModel) -> Draft:
    """A language model that goes on after the exemplars, greedily."""

    def draft(records, exemplars):
        shown = [f"Caption: {each.question}\nNegative: {each.answer}\n\n" for each in exemplars]
        prompts = ["".join([*shown, f"Caption: {r['caption']}\nNegative:"]) for r in records]
        answers = model.generate(prompts, max_tokens=60, stop=("\n",))
        return [each[0].text.strip() for each in answers]

    return draft


def checked(record: Record, text: str) -> bool:
    """Whether a draft passes the checks of one of DeGLA's types."""
    pair = Pair(record["caption"], text)
    return any(rejection(pair, types.load(kind).checks) is None for kind in types.DEGLA)


def imitation(world: World, seed: int) -> Draft:
    """A writer that does to each caption of the world what one of the exemplars shows.

    Where that type does not apply it copies the caption, as small models do.
    """

    def draft(records, exemplars):
        texts = []
        for record in records:
            rng = np.random.default_rng((seed, record["scene"]))
            kind = exemplars[int(rng.integers(len(exemplars)))].skill
            negatives = world.example(record["scene"]).negatives
            texts.append(negatives.get(kind, record["caption"]))
        return texts

    return draft


def by_type(pool: Sequence[Item], blind: bool = False) -> tuple[Callable, Callable]:
    """reflect and rewrite of a Search: one exemplar more of the type that failed most.

    It takes the place of one of the type that the exemplars show most.

    Args:
      pool: exemplars to take from.
      blind: of a random type instead, a control.
    """
    kinds = sorted({item.skill for item in pool})

    def reflect(failures, exemplars, rng):
        failed = [item.skill for item in failures if item.skill in kinds]
        failed = kinds if blind else failed
        most = Counter(failed).most_common()
        tied = [kind for kind, count in most if count == most[0][1]]
        return tied[int(rng.integers(len(tied)))] if tied else None

    def rewrite(exemplars, kind, rng):
        shown = Counter(item.skill for item in exemplars if item.skill != kind)
        if not shown:
            return None
        most = shown.most_common(1)[0][0]
        kept = list(exemplars)
        kept.remove(next(item for item in exemplars if item.skill == most))
        choice = [item for item in pool if item.skill == kind and item not in exemplars]
        return [*kept, choice[int(rng.integers(len(choice)))]] if choice else None

    return reflect, rewrite


def exemplars_of(world: World, scenes: Sequence[int]) -> list[Item]:
    """The captions of scenes, each with its negative of each type."""
    examples = {scene: world.example(scene) for scene in scenes}
    return [
        Item(f"{scene}/{kind}", kind, example.caption, text)
        for scene, example in examples.items()
        for kind, text in example.negatives.items()
    ]


def three_clips(base: Student, world: World, records: Sequence[Record], seed: int) -> list[Student]:
    """A CLIP, it tuned on half of the captions, and it tuned on the others with a negative each."""
    half = len(records) // 2
    with_negatives = [r | {"negatives": world[r["scene"]]["negatives"]} for r in records[half:]]
    return [base, base.fit(records[:half], seed), base.fit(with_negatives, seed)]


def of_type(pool: Sequence[Item], kind: str, count: int) -> list[Item]:
    """The first exemplars of a type.

    Raises:
      UserError: there are fewer.
    """
    items = [item for item in pool if item.skill == kind][:count]
    if len(items) < count:
        raise UserError(f"{len(items)} exemplars of type {kind!r}; {count} are wanted")
    return items


def drafting(lend, world: World, writer: str) -> tuple[Draft, Callable]:
    """Who drafts negatives, and what these must pass; see Writing."""
    if writer == "language":
        return few_shot(lend.language("writer")), checked
    return imitation(world, lend.seed), lambda record, text: text != record["caption"]


def experiment(
    lend,
    captions: Count = 640,
    shown: Count = 8,
    start: str = "replace_noun",
    rounds: Count = 2,
    draws: Count = 2,
    drawn: Count = 200,
    tested: Count = 60,
    writer: str = "imitation",
) -> list[Point]:
    """Do failures of three CLIPs find better exemplars than those of one? In the world.

    The CLIPs: as configured; tuned on captions alone; tuned on captions with a negative. The first
    tells what a set is worth, in each search.

    Args:
      lend: see teach.py.
      captions: that are written for.
      shown: exemplars in a set, at the start all of the type `start`.
      draws: reflections a round.
      drawn: questions that the students are asked a round, and that tell what a set is worth.
      tested: scenes that the search looks at, and as many others that are reported, a split.
      writer: imitation, or language: the models writer and teacher of config.teach.models.

    Returns:
      At x 0 with the exemplars of the start, at x `rounds` with those found: composition (mean over
      types and both splits of the classes) and retention, the means over the three students, each
      taught with them; and how many exemplars are of each type.
    """
    check_known("writer", writer, ("imitation", "language"))
    check_known("type of negative", start, TYPES)
    world = lend.world(num_negatives=1)
    check_enough("captions, to write for and to tune on,", 3 * captions, len(world))
    items, others = lend.tests(tested, split="seen"), lend.tests(tested, sample=1)
    rng = rng_of(lend.seed, 0, "captions")
    scenes = [int(i) for i in rng.permutation(len(world))[: 3 * captions]]
    records = [{"scene": i, "caption": world.captions(i)[0]} for i in scenes]
    pool = exemplars_of(world, scenes[:100])
    first = of_type(pool, start, shown)
    writing = Writing(records[:captions], *drafting(lend, world, writer))
    clips = three_clips(lend.clip(world), world, records[captions:], lend.seed)
    students = [Taught(clip, writing, lend.seed) for clip in clips]

    def measure(exemplars: Sequence[Item]) -> dict[str, float]:
        material, accepted = writing.material(exemplars)
        learnt = [clip.fit(material, lend.seed) for clip in clips]
        each = [list(accuracy(clip.answer(others)).values()) for clip in learnt]
        kept = [lend.retention(clip) for clip in learnt]
        kinds = Counter(item.skill for item in exemplars)
        about = {f"shown: {kind}": kinds[kind] for kind in sorted({i.skill for i in pool})}
        scores = {"composition": float(np.mean(each)), "retention": float(np.mean(kept))}
        return scores | {"accepted": accepted} | about

    def search(looked_at: Sequence[Student], blind: bool = False) -> dict[str, float]:
        steps = by_type(pool, blind)
        if writer == "language":
            steps = language_reflection(lend.language("teacher"), label="Negative")
        found = Search(
            looked_at, students[0].worth, *steps, beam=1, draws=draws, drawn=drawn,
            scored=drawn * (draws + 1), seed=lend.seed,
        ).run(first, items, rounds)  # fmt: skip
        return measure(found[-1].items)

    arms = {"one student": students[:1], "three students": students}
    if writer == "imitation":
        arms["at random"] = students[:1]  # reflection that does not look
    untouched = lend.cells.once("start", lambda: measure(first))
    points = []
    for name, looked_at in arms.items():
        cell = name.replace(" ", "_")
        found = lend.cells.once(cell, functools.partial(search, looked_at, name == "at random"))
        for x, scores in ((0, untouched), (rounds, found)):
            points += [Point(name, x, metric, value) for metric, value in scores.items()]
    return points
