import json

import numpy as np
import pytest

from benchmarks import base
from benchmarks.base import Item, Outcomes
from intervals import Mean, Pooled
from report.results import difference, plain_scores
from report.tables import score_table
from tests.benchmarks.toy import outcomes


def test_macro_and_micro_by_hand():
    asked = {"a": outcomes([1, 1, 0, 0], [0, 0, 1, 1]), "b": outcomes([1], [1])}
    scores = base.summarise(asked, {"macro": Mean("ab"), "micro": Pooled("ab")}, {"b": 3})
    assert [s.name for s in scores.scores] == ["a", "b", "macro", "micro"]
    assert scores["macro"].value == pytest.approx(100 * (0.5 + 1) / 2)
    assert scores["micro"].value == pytest.approx(100 * 3 / 5)
    assert (scores["micro"].count, scores["micro"].ties, scores["micro"].groups) == (5, 3, 4)
    assert plain_scores(scores)["scores"]["a"]["value"] == 50
    assert plain_scores(scores)["left_out"] == {"b": 3}
    assert "left out: 3 examples (b 3)" in score_table("toy", scores)


def test_both_readings_of_a_tie_stand_beside_each_other():
    right = np.array([1, 0, 0, 0], bool)
    plain = outcomes(right, [0, 1, 1, 0])
    made = Outcomes(**{**vars(plain), "argmax": right | plain.tied})
    strict = base.summarise({"all": made}, {})
    argmax = base.summarise({"all": made}, {}, ties="argmax")
    assert (strict["all"].value, argmax["all"].value) == (25, 75)
    for scores in (strict, argmax):
        assert (scores["all"].strict, scores["all"].argmax) == (25, 75)
        assert "strict  argmax" in score_table("toy", scores)
    mixed = base.summarise({"a": made, "b": made}, {"m": Mean("ab")}, ties={"b": "argmax"})
    assert (mixed["a"].value, mixed["b"].value, mixed["m"].value) == (25, 75, 50)


def test_a_wilson_interval_says_so():
    table = score_table("toy", base.summarise({"all": outcomes([1, 1])}, {}))
    assert "34.24 - 100.00w" in table and "w: a Wilson interval" in table


def test_examples_without_a_number_are_wrong_and_counted():
    scores = np.array([[2.0, 1], [np.nan, 1], [1, np.nan], [np.nan, np.nan], [1, 2]], np.float32)
    asked = {"pairs": outcomes([1, 1, 1, 1, 0], scores=scores), "fine": outcomes([1] * 20)}
    found = base.summarise(asked, {"all": Mean(asked)})
    assert (found["pairs"].value, found["pairs"].undecided) == (pytest.approx(20), 3)
    assert found["all"].undecided == 3
    (warning,) = found.warnings()
    assert warning == "pairs: 3 of 5 had scores that are no numbers"
    said = "WARNING: 1 of 3 figures say nothing of this model ("
    assert score_table("toy", found).startswith(said)
    assert plain_scores(found)["warnings"] == [warning]


def test_figures_that_are_nothing_but_ties_are_said_above_the_table():
    asked = {
        "tied": outcomes([0] * 8, [1] * 8),
        "some": outcomes(np.arange(8) % 2, [1, 1] + [0] * 6),
    }
    scores = base.summarise(asked, {})
    assert scores.warnings() == ["tied: 8 of 8 were ties"]
    first, second, *_ = score_table("toy", scores).splitlines()
    assert "WARNING" in first and "tied: 8 of 8 were ties" in first and "count" in second
    fine = base.summarise({"some": asked["some"]}, {})
    assert not fine.warnings() and "WARNING" not in score_table("toy", fine)


def test_a_figure_that_is_no_number_is_null_in_json():
    made = {"ratio": (("all",), lambda mean: mean / np.float64(0))}
    with np.errstate(all="ignore"):
        scores = base.summarise({"all": outcomes([0] * 4)}, made)
    assert scores.warnings() == ["ratio: the figure is no finite number"]
    assert plain_scores(scores)["scores"]["ratio"]["value"] is None
    json.dumps(plain_scores(scores), allow_nan=False)


def test_two_models_are_compared_on_the_same_examples_only():
    ours, theirs = (base.summarise({"all": outcomes(right)}, {}) for right in ([1, 1], [1, 0]))
    d = difference(ours, theirs)["all"]
    assert (d.value, d.discordant) == (50, 1)
    with pytest.raises(ValueError, match="same examples"):
        difference(ours, base.summarise({"all": outcomes([1, 1, 1])}, {}))


def test_a_cluster_is_the_first_image_whatever_its_crop():
    from data.images import Crop

    whole, part = Item("", "1", ["a.jpg"], ()), Item("", "2", [Crop("a.jpg", (0, 0, 1, 1))], ())
    assert whole.cluster == part.cluster == "a.jpg"
    assert Item("", "3", ["a.jpg"], (), group="pair").cluster == "pair"


def test_benchmarks_are_found_by_their_file_name():
    assert {"retrieval", "sugarcrepe", "world", "video", "zero_shot"} <= set(base.available())
    assert not {"base", "encoder", "__init__", "scorers", "rows"} & set(base.available())


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
