import json

import numpy as np
import pytest

from benchmarks import base


def test_interval_is_the_normal_approximation_of_a_proportion():
    right = np.arange(2000) < 1400
    (score,) = base.summarise({"all": right}, {"all": 0}, {})
    half_width = 100 * 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert score.value == pytest.approx(70)
    assert score.low == pytest.approx(70 - half_width, abs=0.25)
    assert score.high == pytest.approx(70 + half_width, abs=0.25)


def test_interval_of_a_macro_mean_is_stratified():
    # Resampled within each subset, the spread between the subsets (0 % and 100 %) adds nothing.
    outcomes = {"none": np.zeros(50), "every": np.ones(50), "some": np.arange(400) % 2}
    aggregates = {"macro": base.macro(outcomes)}
    macro = {s.name: s for s in base.summarise(outcomes, dict.fromkeys(outcomes, 0), aggregates)}
    half_width = 100 * 1.96 * np.sqrt(0.25 / 400) / 3
    assert macro["none"].low == macro["none"].high == 0
    assert macro["macro"].high - macro["macro"].low == pytest.approx(2 * half_width, rel=0.1)


def test_examples_of_a_group_are_drawn_together():
    # Five copies of each of 300 outcomes carry no more information than the 300.
    right = np.arange(300) < 150
    single = base.resampled_means(right)
    grouped = base.resampled_means(np.repeat(right, 5), np.repeat(np.arange(300), 5))
    alone = base.resampled_means(np.repeat(right, 5))
    assert grouped.std() == pytest.approx(np.sqrt(0.25 / 300), rel=0.1)
    assert grouped.std() == pytest.approx(single.std(), rel=0.1)
    assert alone.std() == pytest.approx(np.sqrt(0.25 / 1500), rel=0.1)


def test_interval_is_repeatable():
    right = np.arange(100) % 3 == 0
    assert np.array_equal(base.resampled_means(right, seed=1), base.resampled_means(right, seed=1))


def test_macro_and_micro_by_hand():
    outcomes = {"a": np.array([1, 1, 0, 0]), "b": np.array([1])}
    counts = {"a": 4, "b": 1}
    aggregates = {"macro": base.macro("ab"), "micro": base.micro(counts, "ab")}
    scores = base.Scores(base.summarise(outcomes, {"a": 2, "b": 1}, aggregates), {"b": 3})
    assert [s.name for s in scores.scores] == ["a", "b", "macro", "micro"]
    assert scores["macro"].value == pytest.approx(100 * (0.5 + 1) / 2)
    assert scores["micro"].value == pytest.approx(100 * 3 / 5)
    assert (scores["micro"].count, scores["micro"].ties) == (5, 3)
    assert scores.to_json()["scores"]["a"]["value"] == 50
    assert scores.to_json()["left_out"] == {"b": 3}
    assert "left out: 3 examples (b 3)" in scores.table("toy")


def test_scores_that_are_no_numbers_are_never_right_and_are_said():
    margin = np.array([1.0, np.nan, np.nan, np.nan, -1.0])
    outcomes = {"pairs": base.decided(margin > 0, margin), "fine": np.ones(20)}
    rows = base.summarise(outcomes, {"pairs": 0, "fine": 1}, {"all": base.macro(outcomes)})
    scores = base.Scores(rows)
    assert (scores["pairs"].value, scores["pairs"].undecided) == (pytest.approx(20), 3)
    assert scores["all"].undecided == 3
    (warning,) = scores.warnings()
    assert warning == "pairs: 3 of 5 had scores that are no numbers"
    assert scores.table("toy").startswith("WARNING: 1 of 3 figures say nothing of this model (")
    assert scores.to_json()["warnings"] == [warning]


@pytest.mark.parametrize("scores", [[[np.nan, 1.0]], [[1.0, np.nan]], [[np.nan, np.nan]]])
def test_a_rule_that_nan_would_pass_is_not_passed(scores):
    scores = np.array(scores)
    # "No score above the first" is true of NaN.
    right = np.sum(scores > scores[:, :1], axis=1) == 0
    assert np.isnan(base.decided(right, scores)).all()


def test_figures_that_are_nothing_but_ties_are_said_above_the_table():
    scores = base.Scores(
        base.summarise(
            {"tied": np.zeros(8), "some": np.arange(8) % 2 == 0}, {"tied": 8, "some": 2}, {}
        )
    )
    assert scores.warnings() == ["tied: 8 of 8 were ties"]
    first, second, *_ = scores.table("toy").splitlines()
    assert "WARNING" in first and "tied: 8 of 8 were ties" in first and "count" in second
    fine = base.Scores(base.summarise({"some": np.ones(8)}, {"some": 2}, {}))
    assert not fine.warnings() and "WARNING" not in fine.table("toy")


def test_a_figure_that_is_no_number_is_null_in_json():
    made = {"ratio": (("all",), lambda mean: mean / np.float64(0))}
    with np.errstate(all="ignore"):
        scores = base.Scores(base.summarise({"all": np.zeros(4)}, {"all": 0}, made))
    assert scores.warnings() == ["ratio: the figure is no finite number"]
    assert scores.to_json()["scores"]["ratio"]["value"] is None
    json.dumps(scores.to_json(), allow_nan=False)


def test_benchmarks_are_found_by_their_file_name():
    assert {"retrieval", "sugarcrepe"} <= set(base.available())
    assert not {"base", "encoder", "__init__"} & set(base.available())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sugarcreep", {}, "unknown benchmark 'sugarcreep' .nearest: sugarcrepe.; there are:"),
        ("encoder", {}, "unknown benchmark 'encoder'"),
        ("sugarcrepe", {"partial_image": True}, "nearest: partial_images"),
        ("sugarcrepe", {"zzz": 1}, "option of benchmark sugarcrepe 'zzz'"),
        ("sugarcrepe", {"root": "r", "images": ""}, "give --eval.sugarcrepe.images"),
    ],
)
def test_load_refuses_what_is_not_there(name, options, message):
    with pytest.raises(ValueError, match=message):
        base.load(name, options)
