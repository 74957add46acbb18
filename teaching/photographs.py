"""Where a CLIP is weak on photographs of yours, what to buy, and what it brought (DataEnvGym)."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from captions.mixture import Origin, open_origin
from captions.types import DEGLA, available
from data import sources
from errors import UserError
from options import Count, Share, check_known
from teaching.base import Episode, accuracy
from teaching.data_env import PLAIN, Allocation, check_policies, points_of
from teaching.results import Point
from teaching.tasks.captions import Captions, negative

PASSES = 4  # over the photographs, in search of captions that a type applies to


@dataclasses.dataclass(frozen=True)
class CaptionEngine:
    """Captions of a source, each with a hard negative of a type; an Engine of engines.py.

    Attributes:
      origin: writes the negatives.
      plain: without them, a control.
    """

    source: Any
    origin: Origin
    plain: bool = False

    def make(self, skill, count, rng):
        orders = (rng.permutation(len(self.source)) for _ in range(PASSES))
        tried = (self._record(skill, int(i), rng) for i in itertools.chain.from_iterable(orders))
        return list(itertools.islice(filter(None, tried), count))

    def _record(self, skill: str, index: int, rng) -> dict | None:
        record = sources.without_image(self.source, index)
        i = int(rng.integers(len(record["captions"])))
        text = negative(self.origin, record, i, skill, rng)
        if text is None:
            return None
        about = {"caption": record["captions"][i], "negatives": [] if self.plain else [text]}
        return {"skill": skill, "scene": index, **about}


def experiment(
    lend,
    writer: str = "rules",
    types: Sequence[str] = DEGLA,
    turns: Count = 2,
    budget: Count = 240,
    policies: Sequence[str] = ("by error", "uniform", PLAIN),
    fit_from: Literal["base", "last"] = "base",
    most_lost: Share = 0.1,
    retention: str = "retrieval/image_to_text_recall@1",
) -> list[Point]:
    """What a CLIP gets wrong by type of negative, what a teacher buys for it, and the gain.

    Photographs of config.data teach; half of those set aside are what the teacher looks at, and
    the other half is reported.

    Args:
      lend: see teach.py.
      writer: of the negatives: rules, or a folder that captions.generate wrote.
      types: the skills.
      budget: captions with a negative a turn.
      policies: of data_env.POLICIES, or PLAIN.
      fit_from: see Episode.
      most_lost: of retention, in a turn that may be chosen.
      retention: a score of config.eval's benchmarks that must not be lost.

    Returns:
      Over turns: accuracy by type, their mean (composition), retention, and what each type was
      given (bought); at the last, composition of the turn that is chosen.
    """
    check_policies(policies)
    lend.check_score(retention)
    for kind in types:
        check_known("type of captions", kind, available())
    train, test = lend.photographs("train"), lend.photographs("test")
    origin = open_origin(writer, train, tuple(types))
    halves = (sources.Subset(test, range(half, len(test), 2)) for half in (0, 1))
    start = lend.clip(train)
    # A score that is not known is refused before anything else is asked.
    untaught = lend.cells.once("retention", lambda: lend.score(start, retention))
    looked_at, reported = (Captions(half, origin, types, lend.seed).items() for half in halves)
    if not (looked_at and reported):
        raise UserError(f"{writer} has no negatives for the photographs set aside: write them, too")
    skills = tuple(dict.fromkeys(item.skill for item in looked_at))
    points = []
    for policy in policies:
        plain = policy == PLAIN
        engine = CaptionEngine(train, origin, plain)
        teacher = Allocation(skills, "uniform" if plain else policy, engine)

        def measure(student):
            by_type = accuracy(student.answer(reported))
            composition = float(np.mean(list(by_type.values())))
            kept = untaught if student is start else lend.score(student, retention)
            return {"composition": composition, "retention": kept, **by_type}

        folder = lend.cells.folder / policy.replace(" ", "_")
        episode = Episode(
            start, teacher, looked_at, folder, turns, budget, fit_from=fit_from,
            seed=lend.seed, measure=measure, say=lend.cells.say,
        )  # fmt: skip
        done = episode.run()[1]
        points += points_of(policy, done, most_lost)
        for turn in done[1:]:
            points += [
                Point(policy, turn.number, f"bought: {kind}", n) for kind, n in turn.plan.items()
            ]
    return points
