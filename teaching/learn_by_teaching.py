"""A teacher that learns from how well its students do with what it taught (arXiv 2406.14629).

M1: rationales are scored by exams of students who were shown them, and the scores choose the
answer. M2: the scores become preference pairs, from which the teacher learns by DPO. M3, a set of
exemplars that is searched for by reflection on the failures of several students, is exemplars.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from errors import UserError
from files import write_jsonl
from options import Count
from teaching.answers import equivalent
from teaching.base import Item, Record, Student, Task, check_enough, rng_of
from teaching.results import Point, data_of
from teaching.students import LanguageStudent
from teaching.tasks.math import Math

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


# An experiment: M1 over numbers of rationales, and the pairs of M2.


def draw(
    teacher: LanguageStudent, students: Sequence[Student], problem: Item, exams: Sequence[Item],
    count: int, seed: int,
) -> list[Rationale]:  # fmt: skip
    """The teacher's greedy rationale, and `count` drawn ones with what students make of them."""
    prompt, drawn = [teacher.task.render(problem, teacher.demos)], {"temperature": 0.7, "top_k": 20}
    (greedy,) = teacher.model.generate(prompt, **teacher.sampling)
    (others,) = teacher.model.generate(prompt, n=count, seed=seed, **teacher.sampling | drawn)
    texts = [completion.text for completion in (*greedy, *others)]
    read = [Rationale(text, teacher.task.parse(text, problem)) for text in texts]
    return [read[0], *exam_scores(read[1:], problem, exams, students)]


def experiment(
    lend,
    problems: Count = 20,
    rationales: Count = 8,
    exams: Count = 3,
    students: Sequence[str] = ("student",),
    numbers: Sequence[Count] = (2, 4, 8),
    shots: Count = 2,
    max_tokens: Count = 300,
) -> list[Point]:
    """Do exams of its students choose a teacher's answer better than its majority? On MATH.

    The preference pairs of M2 are kept beside the results, as pairs.jsonl.

    Args:
      lend: see teach.py; its models are the teacher and the students, its data the folder with
        math181.json.
      problems: that have exams which tell something.
      rationales: that the teacher draws for each.
      exams: of each, at most.
      students: names of models.
      numbers: of the rationales, the first so many, that an answer is chosen from.
      shots: other problems that everybody is shown.

    Returns:
      Over numbers: accuracy, by aggregate and of the greedy answer; unparsed, the share of
      rationales that gave no answer; pairs a problem.

    Raises:
      UserError: no folder, too few problems, or numbers beyond the rationales.
    """
    task = Math(data_of(lend, "math") / "math181.json")
    check_enough("rationales (numbers)", max(numbers, default=1), rationales)
    items = task.items()
    items = [items[i] for i in rng_of(lend.seed, 0, "items").permutation(len(items))]
    with_exams = [(item, exams_of(item, task)[:exams]) for item in items[shots:]]
    with_exams = [(item, asked) for item, asked in with_exams if asked]
    check_enough("problems with exams", problems, len(with_exams))
    sampling = {"max_tokens": max_tokens, "stop": ("[[Question]]",)}
    *others, teacher = (
        LanguageStudent(lend.language(name), task, tuple(items[:shots]), sampling=sampling)
        for name in (*students, "teacher")
    )
    told, pairs = [], []
    for k, (item, asked) in enumerate(with_exams[:problems]):
        compute = functools.partial(draw, teacher, others, item, asked, rationales, lend.seed)
        greedy, *drawn = (Rationale(*row) for row in lend.cells.once(f"problem_{k}", compute))
        told.append((item, greedy, drawn))
        right = functools.partial(task.grade, item=item)
        pairs += preference_pairs(task.render(item, teacher.demos), drawn, right)
    write_jsonl(lend.cells.folder / "pairs.jsonl", pairs)

    def share(choose: Callable[[Rationale, list], Rationale | None]) -> float:
        right = []
        for item, greedy, drawn in told:
            picked = choose(greedy, drawn)
            read = picked is not None and picked.answer is not None
            right.append(read and task.grade(picked.answer, item))
        return float(np.mean(right))

    points = []
    for n in numbers:
        unread = np.mean([r.answer is None for _, _, drawn in told for r in drawn[:n]])
        points.append(Point("all", n, "unparsed", float(unread)))
        points.append(Point("greedy", n, "accuracy", share(lambda greedy, drawn: greedy)))
        for how in AGGREGATES:

            def choose(greedy, drawn, n=n, how=how):
                return select_answer(drawn[:n], how, equivalent)

            points.append(Point(how, n, "accuracy", share(choose)))
    return [*points, Point("all", rationales, "pairs", len(pairs) / problems)]
