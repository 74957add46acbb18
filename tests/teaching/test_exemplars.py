"""The search for exemplars: it must reflect, pools failures, and runs on LIAR."""

import dataclasses

import numpy as np
import pytest

from language import scripted
from teaching import exemplars as module
from teaching.base import Item, Outcome, Student
from teaching.exemplars import Search
from teaching.results import Cells
from teaching.tasks.liar import Liar
from tests.teaching.planted import Lent

CONFUSIONS = ("red", "green", "blue")


@dataclasses.dataclass(frozen=True)
class Confused(Student):
    """Gets what is about its own confusions wrong, until an example is about them."""

    confusions: tuple

    def answer(self, items, demos=(), help=None):
        taught = {demo.question.split()[0] for demo in demos}
        outcomes = []
        for item in items:
            topic = item.question.split()[0]
            right = topic not in self.confusions or topic in taught
            outcomes.append(Outcome(item, item.answer if right else None, right))
        return outcomes


TRAINING = [
    Item(f"{topic}{i}", "s", f"{topic} {i}", "yes", ("yes", "no"))
    for topic in (*CONFUSIONS, "gray")
    for i in range(10)
]


def reflect(failures, exemplars, rng):
    return failures[0].question.split()[0] if failures else None


def rewrite(exemplars, reason, rng):
    """Fixes exactly one confusion."""
    return [*exemplars, Item(f"new {reason}", "s", f"{reason} explained", "yes", ("yes", "no"))]


def search(students, judge=Confused(CONFUSIONS)):
    return Search(students, module.answers_of(judge), reflect, rewrite, drawn=40, scored=400)


def test_one_confusion_a_round():
    """A teacher that mends one confusion in each reflection needs as many rounds as there are."""
    best = search([Confused(CONFUSIONS)]).run([TRAINING[-1]], TRAINING, 4)
    assert [round(each.score, 6) for each in best] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_three_students_find_what_one_does_not():
    """Disjoint confusions: the failures are pooled, and the judge has all of them."""
    three = search([Confused((topic,)) for topic in CONFUSIONS]).run([TRAINING[-1]], TRAINING, 3)
    one = search([Confused(CONFUSIONS[:1])]).run([TRAINING[-1]], TRAINING, 3)
    assert three[-1].score == 1.0
    assert one[-1].score == 0.5


def test_sets_are_distinct_and_parents_stay():
    idle = dataclasses.replace(
        search([Confused(CONFUSIONS)]), rewrite=lambda e, r, g: list(e)[::-1]
    )
    best = idle.run([TRAINING[-1], TRAINING[-2]], TRAINING, 2)
    assert [each.items for each in best] == [(TRAINING[-1], TRAINING[-2])] * 3
    silent = dataclasses.replace(search([Confused(CONFUSIONS)]), reflect=lambda f, e, r: None)
    assert silent.run([TRAINING[-1]], TRAINING, 1)[-1].score == 0.25


def test_reflection_by_a_language_model():
    start = [Item("1", "liar", "Statement: a", "yes", ("yes", "no"))]

    def answer(prompt, rng):
        if "Give a reason" in prompt:
            return "Well, <START>They never show any honest statement at all<END> <START>no<END>"
        return (
            "<START>draft<END> then <START>Statement: b\nLabel: no\n\n"
            "Statement: c\nLabel: Maybe\n\nStatement: d\nLabel: Yes<END>"
        )

    look, write = module.language_reflection(scripted.open(answer))
    rng = np.random.default_rng(0)
    reason = look(start, start, rng)
    assert reason == "They never show any honest statement at all"
    made = write(start, reason, rng)
    assert [(i.question, i.answer) for i in made] == [
        ("Statement: b", "no"),
        ("Statement: d", "yes"),
    ]
    short, _ = module.language_reflection(scripted.open(lambda p, r: "<START>too short<END>"))
    assert short(start, start, rng) is None
    _, none = module.language_reflection(scripted.open(lambda p, r: "no tags"))
    assert none(start, reason, rng) is None


def test_f1():
    item = Item("1", "s", "?", "yes", ("yes", "no"))
    no = dataclasses.replace(item, answer="no")
    outcomes = [
        Outcome(item, "yes", True),
        Outcome(item, None, False),
        Outcome(no, "yes", False),
        Outcome(no, "no", True),
    ]
    assert module.f1(outcomes, "yes") == pytest.approx(2 / 4)
    assert module.f1(outcomes[3:], "yes") == 0


def test_experiment_end_to_end(shared, tmp_path):
    """A teacher who says yes once an exemplar is about the word that its students stumble over.

    One student stumbles over nothing: by it nothing is found.
    """
    folder, asked = shared / "data/teaching/lbt", []

    def teacher(prompt, rng):
        asked.append(prompt)
        if "Give a reason" in prompt:
            return "<START>No example says what a mailer is to a voter<END>"
        if "better list" in prompt:
            return "<START>Statement: About a mailer\nAnswer: yes\n\nStatement: x\nAnswer: no<END>"
        return "yes" if "About a mailer" in prompt else "no"

    def stumbles(prompt, rng):
        return "hm"

    def knows(prompt, rng):
        question = prompt.rpartition("\n\n")[2].removesuffix("\nAnswer:")
        return answers[question]

    answers = {item.question: item.answer for item in Liar(folder).items("train")}
    models = dict(
        teacher=scripted.open(teacher), clever=scripted.open(knows), slow=scripted.open(stumbles)
    )
    lent = Lent(models.__getitem__, folder, Cells(tmp_path))
    options = dict(rounds=1, draws=1, drawn=8, scored=400, tested=60)
    points = module.experiment(lent, students=("clever", "slow"), **options)
    at = {(p.series, p.x): p.value for p in points if p.metric == "F1"}
    lies = np.mean([item.answer == "yes" for item in Liar(folder).items("test")[:60]])
    assert at["one student", 0] == at["one student", 1] == at["all students", 0] == 0
    # Whoever says yes to everything finds all lies; it is kept because most are lies.
    assert at["all students", 1] == pytest.approx(2 * lies / (1 + lies))
    searched = {(p.series, p.x): p.value for p in points if p.metric != "F1"}
    assert searched["all students", 0] < 0.5 < searched["all students", 1]
    count = len(asked)
    assert module.experiment(lent, students=("clever", "slow"), **options) == points
    assert len(asked) == count
    (alone,) = {p.series for p in module.experiment(lent, students=("clever",), **options)}
    assert alone == "one student"
