"""Learning by teaching: planted exams, ties, pairs enumerated, and the experiment on MATH."""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from files import read_jsonl
from language import scripted
from teaching import learn_by_teaching as lbt
from teaching.answers import equivalent
from teaching.base import Item, Outcome, Student
from teaching.learn_by_teaching import Rationale, select_answer
from teaching.results import Cells
from teaching.tasks.math import Math
from tests.teaching.planted import Lent


def drawn(p, q, a, b, n, rng):
    """n rationales: right with p, one wrong answer with q, five others; 9 exams each."""
    answers = rng.choice(7, size=n, p=[p, q, *[(1 - p - q) / 5] * 5])
    scores = rng.binomial(9, np.where(answers == 0, a, b)) / 9
    return [Rationale("", str(x), s) for x, s in zip(answers, scores, strict=True)]


def share_right(how, *parameters, runs=300, released=True):
    rng = np.random.default_rng(0)
    chosen = [select_answer(drawn(*parameters, rng), how, released=released) for _ in range(runs)]
    return 100 * np.mean([each.answer == "0" for each in chosen])


@pytest.mark.parametrize(
    ("how", "parameters", "share"),
    [
        ("SC", (0.3, 0.45, 0.7, 0.3, 256), 0.1),
        ("MAX", (0.3, 0.45, 0.7, 0.3, 256), 99.7),
        ("SUM", (0.3, 0.45, 0.7, 0.3, 256), 99.7),
        ("AVG", (0.3, 0.45, 0.7, 0.3, 256), 100),
        ("MAX", (0.3, 0.45, 0.7, 0.3, 8), 87),
        ("SUM", (0.3, 0.45, 0.7, 0.3, 8), 65),
        ("AVG", (0.3, 0.45, 0.7, 0.3, 8), 92),
        # MAX saturates: with many samples a wrong answer reaches the top, too, and count decides.
        ("MAX", (0.4, 0.45, 0.8, 0.6, 24), 84),
        ("MAX", (0.4, 0.45, 0.8, 0.6, 256), 44),
        ("SUM", (0.4, 0.45, 0.8, 0.6, 24), 63),
        ("SUM", (0.4, 0.45, 0.8, 0.6, 256), 89),
    ],
)
def test_planted_answers(how, parameters, share):
    runs = 100 if parameters[-1] == 256 else 400
    error = 3 * 100 * np.sqrt(max(share * (100 - share), 100) / 1e4 / runs)
    assert abs(share_right(how, *parameters, runs=runs) - share) <= error


def test_of_few_rationales_scores_break_the_ties_of_counts():
    assert abs(share_right("SC", 0.3, 0.45, 0.7, 0.3, 8, runs=900, released=False) - 36) < 5
    assert share_right("SC", 0.3, 0.45, 0.7, 0.3, 8, runs=900) < 32


def of(answers, scores):
    return [Rationale(str(i), a, s) for i, (a, s) in enumerate(zip(answers, scores, strict=True))]


@pytest.mark.parametrize(
    ("how", "answers", "scores", "released", "ours"),
    [
        ("SC", "aabb", [0, 0, 1, 1], "b", "b"),  # released: seen last; ours: by scores
        ("SC", "abab", [1, 0, 1, 0], "b", "a"),
        ("SC", "abab", [1, 1, 1, 1], "b", "a"),  # ours: seen first
        ("MAX", "abb", [1, 1, 0], "b", "b"),  # by count
        ("MAX", "ab", [1, 1], "b", "a"),
        ("SUM", "aab", [1 / 9, 2 / 9, 3 / 9], "a", "a"),
        ("AVG", "aab", [1, 0, 0.5], "a", "a"),
        ("AVG", "aab", [1, 0, 0.6], "b", "b"),
        ("SUM", "ab", [0.1, 0.2], "b", "b"),
    ],
)
def test_ties(how, answers, scores, released, ours):
    rationales = of(answers, scores)
    assert select_answer(rationales, how, released=True).answer == released
    assert select_answer(rationales, how).answer == ours


def test_answers_are_grouped_by_what_they_mean():
    rationales = of([".25", r"\frac14", "3", "3"], [0.5, 0.5, 0.4, 0.4])
    assert select_answer(rationales, "SUM", equivalent).answer == ".25"
    assert select_answer(rationales, "SUM").answer == "3"
    unread = [Rationale("x", None, 1.0)]
    assert select_answer([*unread, *rationales], "MAX", equivalent).answer == ".25"
    assert select_answer(unread, "SUM") is None
    with pytest.raises(ValueError, match="unknown aggregate 'MEAN'"):
        select_answer(rationales, "MEAN")


@dataclasses.dataclass(frozen=True)
class Copies(Student):
    """Answers rightly what its example's rationale holds the word for."""

    words: tuple

    def answer(self, items, demos=(), help=None):
        text = " ".join(demo.extra["explanation"] for demo in demos)
        right = [w in text for w in self.words]
        return [Outcome(i, i.answer, r) for i, r in zip(items, right, strict=True)]


def test_rationales_are_scored_by_several_students():
    problem = Item("p", "s", "?", "1")
    exams = [Item(f"e{i}", "s", "?", "1") for i in range(2)]
    rationales = [Rationale("with key and lock", "1"), Rationale("key", "2"), Rationale("", None)]
    students = [Copies(("key", "lock")), Copies(("key", "key"))]
    scored = lbt.exam_scores(rationales, problem, exams, students)
    assert [r.score for r in scored] == [1.0, 0.75, 0.0]
    for arguments in ((rationales, problem, [], students), (rationales, problem, exams, [])):
        with pytest.raises(ValueError, match="need exams and students"):
            lbt.exam_scores(*arguments)


def test_exams_that_reward_copying_are_left_out(shared):
    task = Math(shared / "data/teaching/lbt/math181.json")
    items = task.items()
    kept = {item.key: lbt.exams_of(item, task) for item in items}
    assert all(0 < len(exams) <= 3 for exams in kept.values())
    fewer = [key for key, exams in kept.items() if len(exams) < 3]
    assert 27 <= len(fewer) <= 32
    for item in items:
        answers = [item.answer, *(exam.answer for exam in kept[item.key])]
        assert not any(equivalent(a, b) for i, a in enumerate(answers) for b in answers[:i])


def test_published_shares_are_of_181_problems(shared):
    """Every figure of M1 at 256 rationales, and the greedy ones, is k/181."""
    file = shared / "data/teaching/lbt/published_results.json"
    table = json.loads(file.read_text())["M1"]
    whole = [i for i, name in enumerate(table["columns"]) if "256" in name or name == "greedy"]
    values = np.array([[row[i] for i in whole] for row in table["rows"]])
    counts = values * 181 / 100
    # Two decimals, of which the last is cut in some and rounded in others.
    np.testing.assert_allclose(counts, np.round(counts), atol=0.01 * 1.81 + 1e-4)


def test_preference_pairs_enumerated():
    rationales = of(["1", "1", "2", None], [1.0, 0.4, 0.5, 0.0])
    # Values: 1, .7, .25, 0.
    pairs = lbt.preference_pairs("p", rationales, lambda answer: answer == "1", gap=0.3, most=8)
    assert [(p["chosen"], p["rejected"]) for p in pairs] == [
        ("0", "3"), ("0", "2"), ("1", "3"), ("1", "2"),
    ]  # fmt: skip
    assert all(p["prompt"] == "p" for p in pairs)
    two = lbt.preference_pairs("p", rationales, lambda answer: answer == "1", most=2)
    assert two == pairs[:2]
    # A gap of exactly .3, as a difference of floats just above it, is none.
    near = of(["1", "1"], [0.9, 0.3])
    assert lbt.preference_pairs("p", near, lambda answer: True) == []


def test_experiment_end_to_end(shared, tmp_path):
    """The teacher is right in the first and last of four, else says 0; only its right ones teach.

    Its students copy: they pass their exams where what they were shown is right.
    """
    folder = shared / "data/teaching/lbt"
    items = {item.question: item for item in Math(folder / "math181.json").items()}
    exams = {exam["problem"]: exam["answer"] for i in items.values() for exam in i.extra["exams"]}
    asked = Counter()

    def questions(prompt):
        return re.findall(r"\[\[Question\]\]:\n(.*?)\n\[\[Solution\]\]", prompt, re.DOTALL)

    def teacher(prompt, rng):
        asked["teacher"] += 1
        wrong = asked["teacher"] % 5 in (1, 3, 4)  # of the greedy one and four drawn
        answer = "0.0123" if wrong else items[questions(prompt)[-1]].answer
        return f" I think.\n[[Final Answer]]: ${answer}$"

    def student(prompt, rng):
        asked["student"] += 1
        *_, shown, question = questions(prompt)
        right = f"[[Final Answer]]: ${items[shown].answer}$" in prompt.rpartition(question)[0]
        return f" So.\n[[Final Answer]]: ${exams[question] if right else 'none'}$"

    models = {"teacher": scripted.open(teacher), "student": scripted.open(student)}
    lent = Lent(models.__getitem__, folder, Cells(tmp_path))
    options = dict(problems=3, rationales=4, exams=2, numbers=(1, 4), shots=1)
    points = lbt.experiment(lent, **options)
    at = {(p.series, p.x): p.value for p in points if p.metric == "accuracy"}
    assert at["greedy", 4] == 0 and at["SC", 1] == at["SUM", 1] == 1
    # Two of four say 0.0123: the count ties, and exams decide.
    assert [at[how, 4] for how in lbt.AGGREGATES] == [1, 1, 1, 1]
    assert {p.value for p in points if p.metric == "unparsed"} == {0}
    # Each of two right ones is worth 1, each of two wrong ones 0: four pairs a problem.
    assert [p.value for p in points if p.metric == "pairs"] == [4]
    pairs = [row for _, row in read_jsonl(tmp_path / "pairs.jsonl")]
    assert len(pairs) == 12 and all("0.0123" in p["rejected"] for p in pairs)
    count = asked.total()
    assert lbt.experiment(lent, **options) == points and asked.total() == count
    with pytest.raises(ValueError, match=r"8 rationales \(numbers\) are wanted; there are 4"):
        lbt.experiment(lent, **options | {"numbers": (8,)})
