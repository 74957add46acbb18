"""A set of exemplars, searched for by what several students get wrong (M3 of arXiv 2406.14629).

A teacher reflects on the failures of its students and rewrites the exemplars that they are shown.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from language.base import LanguageModel
from options import Count
from teaching.base import Item, Student, check_enough, rng_of
from teaching.results import Point, data_of
from teaching.students import LanguageStudent
from teaching.tasks.liar import Liar


class Exemplars(NamedTuple):
    """A set of labelled examples, and what it is worth to the judge."""

    items: tuple[Item, ...]
    score: float

    @property
    def key(self) -> tuple:
        return tuple(sorted((item.question, item.answer) for item in self.items))


@dataclasses.dataclass(frozen=True)
class Search:
    """Search for an exemplar set over rounds.

    Attributes:
      students: whose failures are reflected on, pooled.
      judge: (exemplars, items) -> what a set is worth; as published, answers_of(teacher).
      reflect: (failures, exemplars, rng) -> a reason, or None.
      rewrite: (exemplars, reason, rng) -> a new list, or None.
      beam: sets that are kept; draws: reflections on each a round; children: new sets that are
        kept of each; drawn: training items that the students are asked; shown: failures in a
        reflection; scored: training items a round that score the sets, shared among them.
    """

    students: Sequence[Student]
    judge: Callable[[Sequence[Item], Sequence[Item]], float]
    reflect: Callable
    rewrite: Callable
    beam: int = 4
    draws: int = 4
    children: int = 8
    drawn: int = 64
    shown: int = 4
    scored: int = 2048
    seed: int = 0

    def run(self, start: Sequence[Item], items: Sequence[Item], rounds: int) -> list[Exemplars]:
        """The best set at the start and after each round."""
        sets = self._scored([tuple(start)], items, 0)
        best = [sets[0]]
        for number in range(1, rounds + 1):
            sets = self._round(sets, items, number)
            best.append(sets[0])
        return best

    def _round(self, sets: Sequence[Exemplars], items, number: int) -> list[Exemplars]:
        rng = rng_of(self.seed, number, "draw")
        some = [items[i] for i in sorted(rng.permutation(len(items))[: self.drawn])]
        candidates = [each.items for each in sets]
        for index, each in enumerate(sets):
            failures = self.failures(each.items, some)
            candidates += self._children(each, failures, rng_of(self.seed, number, f"set {index}"))
        return self._scored(candidates, items, number)[: self.beam]

    def failures(self, exemplars: Sequence[Item], items: Sequence[Item]) -> list[Item]:
        """Items that at least one student gets wrong with these exemplars, each once."""
        wrong = {}
        for student in self.students:
            for outcome in student.answer(items, demos=exemplars):
                if not outcome.correct:
                    wrong[outcome.item.key] = outcome.item
        return list(wrong.values())

    def _children(self, parent: Exemplars, failures: Sequence[Item], rng) -> list[tuple]:
        children = {}
        for _ in range(self.draws if failures else 0):
            shown = [failures[i] for i in rng.permutation(len(failures))[: self.shown]]
            reason = self.reflect(shown, parent.items, rng)
            rewritten = reason and self.rewrite(parent.items, reason, rng)
            if rewritten:
                new = Exemplars(tuple(rewritten), 0.0)
                if new.key != parent.key:
                    children.setdefault(new.key, new.items)
        return list(children.values())[: self.children]

    def _scored(self, sets: Sequence[tuple], items, number: int) -> list[Exemplars]:
        """Distinct sets by what they are worth, the best first, ties by order."""
        distinct = list({Exemplars(each, 0.0).key: each for each in reversed(sets)}.values())[::-1]
        count = min(len(items), max(1, self.scored // len(distinct)))
        order = rng_of(self.seed, number, "score").permutation(len(items))
        some = [items[i] for i in sorted(order[:count])]
        scored = [Exemplars(each, self.judge(each, some)) for each in distinct]
        return sorted(scored, key=lambda each: -each.score)


def answers_of(student: Student) -> Callable[[Sequence[Item], Sequence[Item]], float]:
    """A judge of exemplars: the share of items that a student answers rightly with them."""

    def share(exemplars, items):
        return float(np.mean([o.correct for o in student.answer(items, demos=exemplars)]))

    return share


def between_tags(text: str, last: bool = True) -> str | None:
    """What stands between <START> and <END>, the last such part or the first; None without one."""
    passages = re.findall(r"<START>(.*?)<END>", text, re.DOTALL)
    return passages[-1 if last else 0].strip() if passages else None


def language_reflection(
    model: LanguageModel, label: str = "Label", fewest_words: int = 6
) -> tuple[Callable, Callable]:
    """reflect and rewrite of a Search by a language model, in the published form.

    A reason of five words or fewer is dropped; of a rewritten list, an exemplar whose answer is
    none of the options, where there are options.

    Args:
      label: what stands before an answer.
    """

    def listed(items: Sequence[Item]) -> str:
        return "\n\n".join(f"{item.question}\n{label}: {item.answer}" for item in items)

    def sampled(prompt: str, rng) -> str:
        seed = int(rng.integers(2**31))
        return model.generate([prompt], temperature=0.7, max_tokens=1024, seed=seed)[0][0].text

    def reflect(failures, exemplars, rng):
        reason = between_tags(
            sampled(
                f"These examples were shown to students:\n\n{listed(exemplars)}\n\n"
                f"They then got these wrong:\n\n{listed(failures)}\n\nGive a reason why the "
                "examples did not help, between <START> and <END>.\n",
                rng,
            ),
            last=False,
        )
        return reason if reason and len(reason.split()) >= fewest_words else None

    def rewrite(exemplars, reason, rng):
        text = between_tags(
            sampled(
                f"Examples:\n\n{listed(exemplars)}\n\nThey have this fault: {reason}\n\nWrite "
                "a better list in the same form, between <START> and <END>.\n",
                rng,
            )
        )
        options, items = exemplars[0].options, []
        for part in re.split(r"(?<=\S)\n\s*\n", text or ""):
            question, marker, answer = (each.strip() for each in part.rpartition(f"{label}:"))
            answer = answer.lower() if options else answer
            if marker and question and (answer in options if options else answer):
                made = f"made/{len(items)}"
                items.append(Item(made, exemplars[0].skill, question, answer, options))
        return items or None

    return reflect, rewrite


def f1(outcomes, positive: str) -> float:
    """F1 of the positive answer; an unread answer is a negative one."""
    told = [(o.answer == positive, o.item.answer == positive) for o in outcomes]
    both = sum(a and b for a, b in told)
    said, true = sum(a for a, _ in told), sum(b for _, b in told)
    return 2 * both / (said + true) if both else 0.0


def experiment(
    lend,
    rounds: Count = 2,
    students: Sequence[str] = ("student",),
    shown: Count = 8,
    draws: Count = 4,
    drawn: Count = 64,
    scored: Count = 2048,
    tested: Count = 200,
) -> list[Point]:
    """Does a teacher find better exemplars by the failures of several students? On LIAR.

    Args:
      lend: see teach.py; its models are teacher and the students, its data the folder of LIAR.
      students: names of models; with more than one, the first alone is held against all of them.
      shown: exemplars in a set; the search starts from training items, half of them lies.
      draws, drawn, scored: see Search.
      tested: test items.

    Returns:
      Over rounds: F1 of the teacher with the best set on test items, lies being the positive; and
      the accuracy on training items by which the search chose it.

    Raises:
      UserError: no folder, or too few items in it.
    """
    task = Liar(data_of(lend, "liar"))
    pool, items = task.items("train"), task.items("test")
    check_enough("test items of liar", tested, len(items))
    pool = [pool[i] for i in rng_of(lend.seed, 0, "items").permutation(len(pool))]
    of_each = [[item for item in pool if item.answer == option] for option in ("yes", "no")]
    check_enough("exemplars (shown)", shown, 2 * min(map(len, of_each)))
    start = [of_each[i % 2][i // 2] for i in range(shown)]
    pool = [item for item in pool if item not in start]
    sampling = {"max_tokens": 4}
    *others, teacher = (
        LanguageStudent(lend.language(name), task, sampling=sampling)
        for name in (*students, "teacher")
    )
    steps = language_reflection(teacher.model, label="Answer")

    def search(looked_at: Sequence[LanguageStudent]) -> list[dict]:
        found = Search(
            looked_at, answers_of(teacher), *steps,
            draws=draws, drawn=drawn, scored=scored, seed=lend.seed,
        ).run(start, pool, rounds)  # fmt: skip
        return [
            {
                "F1": f1(teacher.answer(items[:tested], demos=best.items), "yes"),
                "searched accuracy": best.score,
                "exemplars": [dataclasses.asdict(item) for item in best.items],
            }
            for best in found
        ]

    arms = {"one student": others[:1]} | ({"all students": others} if len(others) > 1 else {})
    points = []
    for name, looked_at in arms.items():
        told = lend.cells.once(
            name.replace(" ", "_"), lambda looked_at=looked_at: search(looked_at)
        )
        for number, best in enumerate(told):
            points += [Point(name, number, m, best[m]) for m in ("F1", "searched accuracy")]
    return points
