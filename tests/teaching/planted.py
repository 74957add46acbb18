"""Students and teachers whose behaviour is known in closed form."""

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from teaching.base import Item, Outcome, Student, Teacher
from teaching.budget import allocate
from teaching.results import Cells


@dataclasses.dataclass(frozen=True)
class Curve(Student):
    """Accuracy on a skill after n records of it: c - (c - a) exp(-n / tau), rounded to items."""

    curves: dict  # skill -> (a, c, tau)
    learnt: Counter = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0

    def accuracy(self, skill: str, n: int | None = None) -> float:
        a, c, tau = self.curves[skill]
        return c - (c - a) * math.exp(-(self.learnt[skill] if n is None else n) / tau)

    def answer(self, items, demos=(), help=None):
        right = [item.extra["quantile"] < self.accuracy(item.skill) for item in items]
        return [
            Outcome(item, item.answer if ok else "wrong", ok, self.accuracy(item.skill))
            for item, ok in zip(items, right, strict=True)
        ]

    def fit(self, records, seed):
        time.sleep(self.seconds)
        learnt = self.learnt + Counter(record["skill"] for record in records)
        return dataclasses.replace(self, learnt=learnt)

    def save(self, folder):
        Path(folder, "learnt.json").write_text(json.dumps(self.learnt))

    def load(self, folder):
        learnt = Counter(json.loads(Path(folder, "learnt.json").read_text()))
        return dataclasses.replace(self, learnt=learnt)


@dataclasses.dataclass(frozen=True)
class Lent:
    """What an experiment in text is lent, see teach.py."""

    language: Callable  # name -> the model
    data: Path
    cells: Cells
    seed: int = 0


def quantile_items(skills, n=100):
    return [
        Item(f"{skill}/{i}", skill, "?", "right", extra={"quantile": (i + 0.5) / n})
        for skill in skills
        for i in range(n)
    ]


def water_filling(
    curves: Mapping[str, Callable[[int], float]], start: Mapping[str, int], budget: int
) -> dict[str, int]:
    """The best split where each skill's accuracy over records is known and concave: greedily."""
    plan = dict.fromkeys(curves, 0)
    for _ in range(budget):
        gains = {s: f(start[s] + plan[s] + 1) - f(start[s] + plan[s]) for s, f in curves.items()}
        plan[max(gains, key=gains.get)] += 1
    return plan


@dataclasses.dataclass(frozen=True)
class Weakest(Teacher):
    """Allocates in proportion to error; its records are numbered at random."""

    def plan(self, state, budget, rng):
        errors = {}
        for outcome in state.last.outcomes:
            errors.setdefault(outcome.item.skill, []).append(not outcome.correct)
        return allocate({skill: sum(wrong) for skill, wrong in errors.items()}, budget)

    def make(self, plan, rng):
        return [
            {"skill": skill, "text": f"record {rng.integers(10**6)}"}
            for skill, n in plan.items()
            for _ in range(n)
        ]
