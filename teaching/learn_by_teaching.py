"""A teacher that learns from how well its students do with what it taught (arXiv 2406.14629).

M1: rationales are scored by exams of students who were shown them, and the scores choose the
answer. M2: the scores become preference pairs, from which the teacher learns by DPO. M3: a set of
exemplars is searched for by reflection on the failures of several students.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from errors import UserError
from language.base import LanguageModel
from teaching.base import Item, Record, Student, Task, rng_of

AGGREGATES = ("SC", "MAX", "SUM", "AVG")


class Rationale(NamedTuple):
    """A teacher's solution, the answer read from it (None: unread), and its students' marks.

    score is the share of exam questions that students answered rightly with it as example.
    """

    text: str
    answer: str | None
    score: float = 0.0


def select_answer(
    rationales: Sequence[Rationale],
    how: str,
    same: Callable[[str, str], bool] = lambda a, b: a == b,
    released: bool = False,
) -> Rationale | None:
    """The first rationale of the answer that wins; None where no answer was read.

    Args:
      how: SC counts rationales, MAX takes the best score, SUM and AVG of scores.
      same: whether two answers are one; as released, only if their texts are.
      released: break ties as the code does, by count and then for the answer seen last; otherwise
        by count, by the sum of scores, and for the answer seen first.

    Raises:
      UserError: an unknown aggregate.
    """
    if how not in AGGREGATES:
        raise UserError(f"unknown aggregate {how!r}; there are: {', '.join(AGGREGATES)}")
    groups: list[list[Rationale]] = []
    for rationale in rationales:
        if rationale.answer is not None:
            for group in groups:
                if same(group[0].answer, rationale.answer):
                    group.append(rationale)
                    break
            else:
                groups.append([rationale])
    if not groups:
        return None

    def value(group):
        scores = [rationale.score for rationale in group]
        sums = {"SC": len(scores), "MAX": max(scores), "SUM": sum(scores)}
        # Sums of ninths in another order must tie.
        return round(sums.get(how, sum(scores) / len(scores)), 9)

    def rank(k):
        group = groups[k]
        if released:
            return value(group), len(group), k
        return value(group), len(group), round(sum(r.score for r in group), 9), -k

    return groups[max(range(len(groups)), key=rank)][0]


def exam_scores(
    rationales: Sequence[Rationale],
    problem: Item,
    exams: Sequence[Item],
    students: Sequence[Student],
) -> list[Rationale]:
    """Rationales with their scores: the mean over students, each shown one as its example.

    Raises:
      UserError: there are no exams or no students.
    """
    if not exams or not students:
        raise UserError(f"problem {problem.key}: rationales need exams and students to be scored")
    scored = []
    for rationale in rationales:
        if rationale.answer is None:
            scored.append(rationale._replace(score=0.0))
            continue
        extra = {**problem.extra, "solution": rationale.text, "explanation": rationale.text}
        shown = dataclasses.replace(problem, answer=rationale.answer, extra=extra)
        marks = [
            outcome.correct
            for student in students
            for outcome in student.answer(exams, demos=[shown])
        ]
        scored.append(rationale._replace(score=float(np.mean(marks))))
    return scored


def exams_of(problem: Item, task: Task) -> list[Item]:
    """The problem's exams, without those that tell nothing.

    Left out: an exam with the problem's own answer, by which a student that copies is rewarded,
    and one whose answer is that of an exam before.
    """
    kept: list[Item] = []
    for i, exam in enumerate(problem.extra["exams"]):
        item = Item(f"{problem.key}/{i}", problem.skill, exam["problem"], exam["answer"])
        others = [problem.answer, *(other.answer for other in kept)]
        if not any(task.grade(other, item) for other in others):
            kept.append(item)
    return kept


def preference_pairs(
    prompt: str,
    rationales: Sequence[Rationale],
    right: Callable[[str], bool],
    gap: float = 0.3,
    most: int = 8,
) -> list[Record]:
    """{prompt, chosen, rejected}: rationales whose values differ by more than the gap, M2.

    The value is half correctness and half score. The widest gaps come first; ties by order.
    """
    values = [0.5 * (r.answer is not None and right(r.answer)) + 0.5 * r.score for r in rationales]
    pairs = [
        (round(values[i] - values[j], 9), i, j)
        for i in range(len(values))
        for j in range(len(values))
        if round(values[i] - values[j], 9) > gap
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {"prompt": prompt, "chosen": rationales[i].text, "rejected": rationales[j].text}
        for _, i, j in pairs[:most]
    ]


# M3: exemplars by reflection.


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
