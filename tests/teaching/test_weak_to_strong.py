"""Errors of supervision: exact, nested, independent of each other; and the published figures."""

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from data.glyphs import NOUNS
from data.world import Claim, Thing, World, holds
from files import read_jsonl
from teaching import socratic
from teaching import weak_to_strong as w2s
from teaching.answers import ANNOTATION
from teaching.socratic import corrupt, evaluate, exact, step_errors


@pytest.fixture(scope="module")
def file(shared):
    return shared / "data/teaching/w2s/gsm8k_test_socratic.jsonl"


@pytest.fixture(scope="module")
def problems(file):
    return socratic.read_socratic(file)[0]


def test_the_files_counts(file, problems):
    rows = [json.loads(line) for line in file.read_text().strip().split("\n")]
    steps = [line for row in rows for line in row["answer"].split("\n") if " ** " in line]
    annotations = [match for row in rows for match in ANNOTATION.finditer(row["answer"])]
    assert (len(rows), len(steps), len(annotations)) == (1319, 4821, 4282)
    assert all(evaluate(m[1]) == exact(m[2]) for m in annotations)
    _, left_out = socratic.read_socratic(file)
    assert left_out.pop("a result is not written after its annotation") < 4
    assert left_out == {"no annotation": 18, "no annotation gives the answer": 93}
    assert all(exact(p.annotations[p.decides][2]) == p.answer for p in problems)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("16-3-4", 13 - 4),
        ("80,000*1.5", 120000),
        ("1/3", Fraction(1, 3)),
        (".5*(2+-4)", -1),
        ("2**3", 8),
        ("7//2", 3),
        ("$20*2", 40),
    ],
)
def test_arithmetic_is_rational(expression, value):
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression", ["1/0", "x+1", "__import__('os')", "1+", "9**9**9", "f(2)", "'a'*3", "True"]
)
def test_nothing_but_arithmetic_is_evaluated(expression):
    with pytest.raises(ValueError, match=r"arithmetic|division|exponent|syntax|'1\+'"):
        evaluate(expression)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.35, 1.0])
def test_outcome_error_is_exact(problems, rate):
    made = w2s.hard_problems(problems, rate, severity=0.5, seed=1)
    wrong = [a.answer != b.answer for a, b in zip(made, problems, strict=True)]
    assert sum(wrong) == int(rate * len(problems))
    for new, old, is_wrong in zip(made, problems, wrong, strict=True):
        steps = len(old.annotations)
        assert step_errors(new) == (max(1, round(0.5 * steps)) if is_wrong else 0)
        assert new.question == old.question and new.subquestions == old.subquestions
        assert is_wrong or new == old


def test_errors_are_nested_over_rates(problems):
    before = np.zeros(len(problems), bool)
    for rate in np.arange(0, 1.01, 0.1):
        wrong = w2s.is_wrong(len(problems), rate, seed=2)
        assert wrong.sum() == int(round(rate * len(problems), 9))
        assert (wrong | before == wrong).all()
        before = wrong
    assert (w2s.is_wrong(100, 0.29, 0)).sum() == 29
    low, high = (w2s.hard_problems(problems[:50], rate, 0.5, seed=2) for rate in (0.2, 0.6))
    # What is wrong at the lower rate is wrong in the same way at the higher.
    assert all(a == b for a, b, p in zip(low, high, problems, strict=False) if a != p)


def test_outcome_and_steps_are_set_independently(problems):
    """All end right with most steps wrong; all end wrong with one step wrong."""
    right = w2s.hard_problems(problems, 0, 0, seed=3, severity_of_right=1.0)
    for new, old in zip(right, problems, strict=True):
        assert new.answer == old.answer
        assert step_errors(new) == len(old.annotations) - 1
    wrong = w2s.hard_problems(problems, 1, 0, seed=3)
    assert all(step_errors(new) == 1 for new in wrong)
    with pytest.raises(ValueError, match="0 of 3 steps cannot be wrong"):
        w2s.spread(True, 2, 3, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="3 of 3 steps cannot"):
        w2s.spread(False, 2, 3, 3, np.random.default_rng(0))


def test_propagated_errors_are_calculated_on(problems):
    """One wrong step, all others right by their own expressions, and the answer follows."""
    rng = np.random.default_rng(4)
    changed = failed = 0
    for problem in problems[:300]:
        try:
            new = corrupt(problem, [0], rng, propagate=True)
        except ValueError:
            failed += 1
            continue
        assert step_errors(new) == 1
        first = new.annotations[0]
        assert evaluate(first[1]) != exact(first[2])
        assert exact(new.annotations[new.decides][2]) == new.answer
        changed += new.answer != problem.answer
    assert failed < 6 and changed > 200


def test_a_corrupted_step_says_its_number_throughout():
    problem = socratic.Problem(
        "1", "q", ("a?", "b?"), ("2+3 = $<<2+3=5>>5.", "5*2 = <<5*2=10>>10 eggs"), Fraction(10), 1
    )
    alone = corrupt(problem, [0], np.random.default_rng(0))
    value = exact(alone.annotations[0][2])
    assert alone.steps == (f"2+3 = $<<2+3={value}>>{value}.", problem.steps[1])
    assert alone.answer == 10
    on = corrupt(problem, [0], np.random.default_rng(0), propagate=True)
    assert on.steps[1] == f"{value}*2 = <<{value}*2={2 * value}>>{2 * value} eggs"
    assert on.answer == 2 * value
    with pytest.raises(ValueError, match="has no annotations"):
        corrupt(problem, [2], np.random.default_rng(0))


def test_records_of_problems_and_of_their_parts(problems):
    hard = w2s.hard_records(problems[:5])
    assert hard[0]["completion"].endswith("#### 18\n") and "<<" not in hard[0]["completion"]
    clean = w2s.subtask_records(problems, 0, seed=0)
    assert len(clean) == sum(len(p.steps) for p in problems)
    noisy = w2s.subtask_records(problems, 0.3, seed=0)
    calculating = sum(bool(ANNOTATION.search(s)) for p in problems for s in p.steps)
    different = [a != b for a, b in zip(clean, noisy, strict=True)]
    assert sum(different) == int(0.3 * calculating)
    # Only what is to be learnt is wrong: the steps before are right.
    assert [r["prompt"] for r in clean] == [r["prompt"] for r in noisy]
    assert clean[1]["prompt"].endswith(f"Next: {problems[0].subquestions[1]}\nAnswer:")


def test_mixtures_of_equal_length(problems):
    hard = w2s.hard_records(problems)
    parts = w2s.subtask_records(problems, 0, seed=0)
    for records in (hard, parts):
        some = w2s.matched(records, 5000, seed=1)
        words = sum(len(r["completion"].split()) for r in some)
        assert 4800 < words <= 5000
    assert w2s.matched(hard, 10**9, seed=1) != hard
    assert sorted(map(str, w2s.matched(hard, 10**9, seed=1))) == sorted(map(str, hard))


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_propagated_outcomes_are_as_exact(problems, rate):
    """Of each that ends wrong exactly its share of steps is wrong by its own expression."""
    some = problems[:150]
    made = w2s.hard_problems(some, rate, 0.5, seed=6, propagate=True)
    wrong = [a.answer != b.answer for a, b in zip(made, some, strict=True)]
    assert sum(wrong) == int(rate * len(some))
    for new, old, is_wrong in zip(made, some, wrong, strict=True):
        steps = len(old.annotations)
        assert step_errors(new) == (max(1, round(0.5 * steps)) if is_wrong else 0)
        assert exact(new.annotations[new.decides][2]) == new.answer
    with pytest.raises(ValueError, match="calculated on does not end right"):
        w2s.hard_problems(some, 0, 0, seed=6, severity_of_right=0.5, propagate=True)


def test_command_writes_one_form_or_both(file, problems, tmp_path, capsys):
    out = tmp_path / "new" / "train.jsonl"
    w2s.main([str(file), "--hard=0", f"--out={out}"])
    told = capsys.readouterr().out
    assert f"{len(problems)} records" in told and "left out: 18 problems, no annotation" in told
    written = [row for _, row in read_jsonl(out)]
    clean = w2s.hard_records(problems)
    assert sorted(map(str, written)) == sorted(map(str, clean)) and written != clean
    both = ["--hard=0.2", "--subtask=0.5", "--severity=0.3", "--words=3000", "--seed=1"]
    w2s.main([str(file), *both, f"--out={out}"])
    forms = {"hard": [], "subtask": []}
    for _, row in read_jsonl(out):
        forms[row["skill"]].append(row)
    for rows in forms.values():
        assert 2900 < sum(len(row["completion"].split()) for row in rows) <= 3000
    for wrong, message in (
        ([], "give --hard=RATE"),
        (["--hard=0.1", "--propagate", "--severity-of-right=0.1"], "does not end right"),
    ):
        with pytest.raises(SystemExit, match=message):
            w2s.main([str(file), *wrong, f"--out={out}"])
    with pytest.raises(SystemExit):
        w2s.main([str(file), "--hard=1.5", f"--out={out}"])
    assert "invalid" in capsys.readouterr().err


SCENE = Claim((Thing("cat", 1, "red", "big"), Thing("dog", 1, "blue", "small")), "left of")


@pytest.mark.parametrize(
    ("claim", "wrong"),
    [
        (SCENE, 0),
        (Claim(SCENE.things[::-1], "right of"), 0),
        (Claim(SCENE.things, "right of"), 1),
        (Claim(SCENE.things, "above"), 1),
        (Claim(SCENE.things[::-1], "left of"), 1),
        (Claim((Thing("cat", 1, "blue", "big"),), ""), 1),
        (Claim((Thing("dog", 1, "", ""),), ""), 0),
        (Claim((Thing("dog", 1, "red", "big"),), ""), 1),
        (Claim((Thing("cow", 1, "gray", "small"),), ""), 2),
    ],
)
def test_wrong_atoms(claim, wrong):
    assert w2s.wrong_atoms(claim, SCENE) == wrong
    assert holds(claim, SCENE) == (wrong == 0)


WORLD = World(2000, "train", "seen", 32, pairs=1.0)


@pytest.mark.parametrize("form", ["hard", "subtask"])
@pytest.mark.parametrize(("rate", "severity"), [(0.0, 0.5), (0.3, 0.1), (1.0, 0.6)])
def test_false_captions_by_the_worlds_own_truth(form, rate, severity):
    records = w2s.world_records(WORLD, 60, form, rate, severity, NOUNS["seen"], seed=5)
    total = {"hard": 7, "subtask": 3}[form]
    assert {r["atoms"] for r in records} == {total}
    wrong = [r["wrong"] for r in records if r["wrong"]]
    assert len(wrong) == int(rate * 60)
    assert set(wrong) <= {max(1, round(severity * total))}
    assert len({r["scene"] for r in records}) == 60


def test_falsified_claims_have_exactly_so_many_wrong_atoms():
    rng = np.random.default_rng(6)
    for count in range(7):
        claim = w2s.falsified(SCENE, SCENE, count, NOUNS["seen"], rng)
        assert w2s.wrong_atoms(claim, SCENE) == count
        assert holds(claim, SCENE) == (count == 0)
    with pytest.raises(ValueError, match="8 wrong atoms in a claim of 7"):
        w2s.falsified(SCENE, SCENE, 8, NOUNS["seen"], rng)


def test_clean_captions_are_the_same_at_every_rate():
    clean = w2s.world_records(WORLD, 40, "hard", 0, 0.5, NOUNS["seen"], seed=7)
    noisy = w2s.world_records(WORLD, 40, "hard", 0.5, 0.5, NOUNS["seen"], seed=7)
    same = Counter(a == b for a, b in zip(clean, noisy, strict=True))
    assert same == {True: 20, False: 20}
    assert all(a == b for a, b in zip(clean, noisy, strict=True) if not b["wrong"])
    with pytest.raises(ValueError, match="'hard' or 'subtask'"):
        w2s.world_records(WORLD, 4, "easy", 0, 0.5, NOUNS["seen"], seed=7)
    with pytest.raises(ValueError, match="has 3 scenes of two things; 4 are wanted"):
        w2s.world_records(World(3, pairs=1.0), 4, "hard", 0, 0.5, NOUNS["seen"], seed=7)


@pytest.fixture(scope="module")
def published(shared):
    return json.loads((shared / "data/teaching/w2s/published_results.json").read_text())


def test_published_averages(published):
    table = published["combination_printed"]
    rows = [values for name, values in table.items() if name not in ("columns", "Average")]
    assert len(rows) == 5
    np.testing.assert_allclose(np.mean(rows, axis=0), table["Average"], atol=0.06)


def test_published_slopes(published):
    """Per 10 points of outcome error: -.25 (t -2.0) for hard tasks, -.85 (t -7.1) for subtasks."""
    table = published["hard_vs_subtask_by_outcome_error_rate"]
    for form, slope, t in (("hard", -0.25, -2.0), ("subtask", -0.85, -7.1)):
        fit = stats.linregress(np.array(table["error_rate_percent"]) / 10, table["MATH-500"][form])
        assert fit.slope == pytest.approx(slope, abs=0.006)
        assert fit.slope / fit.stderr == pytest.approx(t, abs=0.06)
    math = table["MATH-500"]
    assert math["hard"][-1] - math["subtask"][0] == pytest.approx(7.4)
    for name, row in table.items():
        if isinstance(row, dict):
            for values in (row["hard"], row["subtask"]):
                shares = np.array(values) * row["n"] / 100
                np.testing.assert_allclose(shares, np.round(shares), atol=0.12), name
