"""DataEnvGym in text: planted writers and students, over GSM8K's own problems."""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from errors import UserError
from files import read_jsonl
from language import scripted
from teaching import problems as module
from teaching.base import Item
from teaching.engines import GoldEngine, ProblemEngine
from teaching.results import Cells
from teaching.tasks.gsm8k import GSM8K
from tests.teaching.planted import Lent

TASK = GSM8K("unused")


def item(i, skill="adding"):
    return Item(str(i), skill, f"{i} and 3?", str(i + 3), extra={"explanation": "Add."})


def written(problem, answer="6", thought="Two and four make six."):
    return json.dumps({"problem": problem, "chain_of_thought": thought, "final_answer": answer})


@pytest.mark.parametrize(
    ("solution", "skill"),
    [
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs, 9 * 2 = $<<9*2=18>>18", "multiplying"),
        ("<<4/2=2>>2 then <<4+2-1=5>>5", "subtracting"),
        ("2/2=<<2/2=1>>1", "dividing"),
        ("It is 5 - 3 by counting.", "counting"),
    ],
)
def test_the_skill_is_the_last_operation(solution, skill):
    assert module.operation(dataclasses.replace(item(1), extra={"solution": solution})) == skill


def test_problems_are_written_by_skill_and_asked_for_once_more():
    """Two of four hold at first; the second time it is shown these, and what is too much is cut."""
    texts = iter([written("A?"), "no", written("A?"), written("B?"), *map(written, "ACDE")])
    prompts = []

    def answer(prompt, rng):
        prompts.append(prompt)
        return next(texts)

    items = [*map(item, range(5)), item(9, "dividing")]
    engine = ProblemEngine(scripted.open(answer), TASK, items)
    records = engine.make("adding/two steps", 4, np.random.default_rng(0))
    assert [r["question"] for r in records] == ["A?", "B?", "A", "C"]
    assert all(r["skill"] == "adding/two steps" and r["answer"] == "6" for r in records)
    assert len(prompts) == 6 and all("need adding/two steps:" in p for p in prompts)
    assert not any("9 and 3?" in p for p in prompts)
    assert all(sum(f"{i} and 3?" in p for i in range(5)) == 3 for p in prompts)
    assert ["A?\n\nB?" in p for p in prompts] == [False] * 4 + [True] * 2


def test_gold_is_of_the_skill_and_never_twice():
    engine = GoldEngine([item(i, "adding" if i % 2 else "dividing") for i in range(10)])
    records = engine.make("adding/any", 3, np.random.default_rng(0))
    assert len({r["key"] for r in records}) == 3 and {int(r["key"]) % 2 for r in records} == {1}
    assert len(engine.make("dividing", 99, np.random.default_rng(0))) == 5


def test_subskills_are_named_by_a_language_model():
    model = scripted.open(lambda prompt, rng: " Carrying over.\n- 2. Big numbers\n\n- more")
    names = module.by_asking(model)("adding", ("carrying",), 2, np.random.default_rng(0))
    assert names == ["carrying over", "big numbers"]


@pytest.fixture
def language():
    """A student who copies the answer of the problem that it was last shown, if it was shown one.

    The teacher writes problems whose answer is 18, which is GSM8K's first one's.
    """
    asked = Counter()

    def student(prompt, rng):
        asked["student"] += 1
        shown = re.findall(r"the answer is (\d+)\n", prompt)
        return f" So the answer is {shown[-1]}" if shown else " I cannot say."

    def teacher(prompt, rng):
        asked["teacher"] += 1
        if "as json" in prompt:
            return written(f"Which is {rng.integers(10**6)}?", "18", "So it is.")
        return " one\n- two\n- three"

    models = {"student": scripted.open(student), "teacher": scripted.open(teacher)}
    return models.__getitem__, asked


OPTIONS = dict(turns=1, budget=6, training=40, looked_at=20, tested=30)


def test_every_arm_at_equal_numbers(shared, tmp_path, language):
    model, asked = language
    folder = shared / "data/teaching/tom"
    lent = Lent(model, folder, Cells(tmp_path))
    points = module.experiment(lent, **OPTIONS)
    at = {(p.series, p.x, p.metric): p.value for p in points}
    assert {p.series for p in points} == set(module.ARMS)
    for arm in module.ARMS:
        assert (at[arm, 0, "unparsed"], at[arm, 1, "unparsed"]) == (1, 0)
        assert (at[arm, 0, "accuracy"], at[arm, 0, "records"]) == (0, 0)
        assert at[arm, 1, "records"] == 6
    # Whoever copies 18 is right where the answer is 18.
    answers = Counter(i.answer for i in GSM8K(folder).items("test"))
    assert at["skill list", 1, "accuracy"] == at["evenly", 1, "accuracy"] < 0.2
    assert answers["18"] > 5
    # What is kept is not asked for again, and what the stateless teacher shows are no errors.
    count = asked.total()
    assert module.experiment(lent, **OPTIONS) == points and asked.total() == count
    turns = {
        arm: [row for _, row in read_jsonl(tmp_path / arm / "turn_001.jsonl")]
        for arm in ("open-ended", "stateless", "gold")
    }
    tested = {row["outcome"]["item"] for row in turns["gold"] if "outcome" in row}
    questions = {i.question for i in GSM8K(folder).items("test") if i.key in tested}
    shown = {arm: {q for each in rows[0]["plan"]["shown"] for q in each}
             for arm, rows in turns.items() if arm != "gold"}  # fmt: skip
    assert shown["open-ended"] & questions and not shown["stateless"] & questions
    gold = {row["record"]["key"] for row in turns["gold"] if "record" in row}
    assert len(gold) == 6 and not gold & tested


def test_skills_that_the_teacher_discovers(shared, tmp_path):
    """It names a problem by whether it is about money, and groups the names."""

    def teacher(prompt, rng):
        if prompt.startswith("Problem:"):
            return " money" if "$" in prompt else " counting things"
        if prompt.startswith("Group these"):
            return "1. Money: money\n2. Things: counting_things"
        return written(f"{rng.integers(10**6)}?")

    models = {"teacher": scripted.open(teacher), "student": scripted.open(lambda p, rng: " hm")}
    lent = Lent(models.__getitem__, shared / "data/teaching/tom", Cells(tmp_path))
    module.experiment(lent, arms=("evenly",), skills="discovered", **OPTIONS)
    _, *rows = (row for _, row in read_jsonl(tmp_path / "evenly/turn_001.jsonl"))
    made = Counter(row["record"]["skill"] for row in rows if "record" in row)
    assert made == {"Money": 3, "Things": 3}
    named = json.loads((tmp_path / "skills.json").read_text())
    items = {item.key: item for item in GSM8K(lent.data).items("test")}
    assert len(named) == OPTIONS["training"] + OPTIONS["looked_at"]
    assert all((name == "Money") == ("$" in items[key].question) for key, name in named.items())


def test_what_cannot_be_is_one_line(shared, tmp_path, language):
    lent = Lent(language[0], shared / "data/teaching/tom", Cells(tmp_path))
    with pytest.raises(UserError, match="unknown arm 'best'"):
        module.experiment(lent, arms=("best",))
    with pytest.raises(UserError, match="unknown policy 'best'.*language model"):
        module.experiment(lent, policy="best")
    with pytest.raises(UserError, match="10160 problems .* are wanted; there are 1319"):
        module.experiment(lent, training=10**4, looked_at=60)
    with pytest.raises(UserError, match="gsm8k needs its files"):
        module.experiment(dataclasses.replace(lent, data=None))
