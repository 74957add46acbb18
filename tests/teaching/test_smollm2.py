"""A real small model runs every text form end to end on a handful of items.

It is weak: how well it does is no test. What it cannot say is counted and is never an answer.
"""

import dataclasses

import numpy as np
import pytest

from language.base import LanguageModel
from language.cache import cached
from teaching import (
    arte,
    audit,
    coach,
    exemplars,
    mathdial,
    problems,
    strategies,
    writer_strategies,
)
from teaching import learn_by_teaching as lbt
from teaching import theory_of_mind as tom
from teaching import weak_to_strong as w2s
from teaching.base import Item
from teaching.library import Library
from teaching.results import Cells
from teaching.socratic import read_socratic
from teaching.students import LanguageStudent
from teaching.tasks.code import Code
from tests.teaching.planted import Lent

pytestmark = pytest.mark.slow


class Brief(LanguageModel):
    """A language model that never writes more than a line or two."""

    def __init__(self, model, most=24):
        self._model, self._most = model, most
        self.name, self.capabilities = model.name, model.capabilities
        self.batch_size, self.concurrency = model.batch_size, model.concurrency
        self._score, self._choices, self._embed = model._score, model._choices, model._embed

    def _generate(self, prompts, sampling):
        most = min(sampling.max_tokens, self._most)
        return self._model._generate(prompts, dataclasses.replace(sampling, max_tokens=most))


@pytest.fixture(scope="module")
def model(local_smollm2):
    return Brief(local_smollm2)


@pytest.fixture
def tell(record_property):
    """Reports what came out, which is no test."""
    return lambda values: record_property("SmolLM2", str(values))


@pytest.fixture(scope="module")
def data(shared):
    return shared / "data/teaching"


def test_theory_of_mind(model, data, tmp_path, tell):
    lent = Lent(lambda name: model, data / "tom", Cells(tmp_path))
    points = tom.experiment(lent, task="ecqa", train=4, tested=3, examples=2, explains="blind")
    assert {p.series for p in points} == {*tom.RANKINGS, "all"}
    assert all(0 <= p.value <= 1 for p in points)
    tell({(p.series, p.x, p.metric): p.value for p in points if p.series in ("utility", "all")})


def test_problems_where_it_is_weak(model, data, tmp_path, tell):
    kept = cached(model, tmp_path / "answers")
    lent = Lent(lambda name: kept, data / "tom", Cells(tmp_path))
    arms = ("open-ended", "skill tree")
    options = dict(turns=1, budget=1, training=6, looked_at=2, tested=1, policy="language model")
    points = problems.experiment(lent, arms=arms, **options)
    assert {p.series for p in points} == set(arms)
    records = {p.series: p.value for p in points if (p.metric, p.x) == ("records", 1)}
    assert records.keys() == set(arms) and max(records.values()) <= 1
    tell({(p.series, p.x, p.metric): p.value for p in points if p.metric != "records"})


def test_programs(model, tell):
    task = Code()
    outcomes = LanguageStudent(model, task).answer(task.items()[:2])
    assert all(o.answer is None or o.answer.startswith("def ") for o in outcomes)
    assert all(
        o.correct == (o.answer is not None and task.grade(o.answer, o.item)) for o in outcomes
    )
    tell({o.item.key: o.correct for o in outcomes})


def test_supervision_right_and_wrong(model, data):
    (path,) = (data / "w2s").glob("*socratic*")
    problems = read_socratic(path)[0][:2]
    right, wrong = (w2s.mixture(problems, error, None) for error in (0.0, 1.0))
    for records in (right, wrong, w2s.subtask_records(problems, 0.5, seed=0)[:2]):
        prompts, completions = zip(*((r["prompt"], r["completion"]) for r in records), strict=True)
        scores = model.score(list(prompts), list(completions))
        assert all(s.log_probability < 0 < s.tokens for s in scores)


def test_learning_by_teaching(model, data, tmp_path, tell):
    lent = Lent(lambda name: model, data / "lbt", Cells(tmp_path))
    options = dict(problems=1, rationales=2, exams=1, numbers=(2,), shots=1)
    points = lbt.experiment(lent, **options)
    assert {p.series for p in points} == {"all", "greedy", *lbt.AGGREGATES}
    tell({(p.series, p.x, p.metric): p.value for p in points})


def test_exemplars_by_reflection(model, data, tmp_path, tell):
    lent = Lent(lambda name: model, data / "lbt", Cells(tmp_path))
    options = dict(rounds=1, shown=2, draws=1, drawn=2, scored=2, tested=2)
    points = exemplars.experiment(lent, **options)
    assert [p.x for p in points] == [0, 0, 1, 1] and all(0 <= p.value <= 1 for p in points)
    tell({(p.series, p.x, p.metric): p.value for p in points})


def test_coach_and_audit(model):
    lessons = [["Teacher: Why is it five?", "Student: Because two and three."]] * 2
    told = coach.rate(model, lessons, "CLBM")
    assert sum(told.failures.values()) == sum(value is None for value in told.values)
    for answers in (
        coach.highlights(model, lessons[0], "CLBM"),
        coach.suggestions(model, lessons[0]),
    ):
        assert len(answers.values) == 1
    negatives = [audit.Negative(f"{i}", "A dog runs .", "A cat runs .") for i in range(2)]
    result = audit.audit(model, negatives)
    assert all(np.isfinite(scores).all() for scores in result.scores.values())


def test_dialogues(model, data):
    (problem, *_) = mathdial.read(data / "mathdial/mathdial_test.jsonl")
    speak = [mathdial.speaker(model, role) for role in ("teacher", "student")]
    told = mathdial.converse(problem, *speak, rounds=1, retries=1)
    assert not told.complete or len(told.dialogue.turns) == 3
    assert "1 dialogues" in mathdial.report([told.dialogue])


def test_drafts(model):
    student = LanguageStudent(model, arte.Tagged("Add."))
    drafts = arte.draft_rationales(model, "Add.", [arte.Draft("1 + 1", "2")])
    (scored,) = arte.score_drafts(drafts, student, [Item("1", "s", "2 + 2", "4")])
    assert len(scored.rationales) == len(scored.scores) == 4
    assert {*scored.scores} <= {0.0, 1.0}


def test_strategies(model):
    library = Library(model.embed)
    scenario = strategies.Scenario("k", "The customer is angry.", "My parcel is lost!")
    judge = strategies.Judge(model)

    def says(scenario, advice):
        return model.generate([f"{' '.join(advice)}\nCustomer: {scenario.prompt}\nAgent:"])[0][
            0
        ].text

    loop = strategies.Loop(
        lambda number, answer: [scenario], says, lambda s: says(s, []),
        strategies.advisor(model), judge, library, refinements=0,
    )  # fmt: skip
    (told,) = loop.run(1)
    assert told["new"] == 1 and len(library.entries) == told["kept"]
    assert told["kept"] == judge.verdicts["new"]


def test_strategies_for_a_writer(model):
    writer, library = writer_strategies.Writer(model), Library(model.embed)
    wanted = [writer_strategies.Wanted("replace_noun", "A dog runs on the beach .")]
    (told,) = writer_strategies.loop(writer, model, wanted, library).run(1)
    (share,) = writer_strategies.acceptance(writer, wanted, library).values()
    assert told["kept"] == len(library.entries) and 0 <= share <= 1
