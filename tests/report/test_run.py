"""The report of a run: its figures are the log's."""

import json

import pytest

from report import run as report


def log(folder, *rows):
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_scores_are_those_before_the_first_step_and_after_the_last(tmp_path):
    log(
        tmp_path,
        {"step": 0, "world/swaps": 50.0},
        {"step": 5, "loss": 1.0},
        {"step": 5, "world/swaps": 60.0},
        {"step": 10, "loss": 0.5},
        {"step": 10, "world/swaps": 71.25},
    )
    assert report.read_scores(tmp_path) == ({"world/swaps": 50.0}, {"world/swaps": 71.25})


@pytest.mark.parametrize("step", [0, 5])
def test_scores_of_one_step_only_are_refused(tmp_path, step):
    log(tmp_path, {"step": step, "world/swaps": 50.0})
    with pytest.raises(ValueError, match="before_and_after"):
        report.read_scores(tmp_path)


def test_the_table_says_what_changed():
    before, after = {"a/one": 50.0, "a/three": 61.25}, {"a/one": 71.26, "a/three": 61.0}
    _, one, three = report.table(before, after).splitlines()
    assert one.split() == ["a/one", "50.0", "71.3", "+21.3"]
    assert three.split() == ["a/three", "61.2", "61.0", "-0.2"]


def test_the_figure_has_an_arrow_a_score():
    before, after = {"a/one": 50.0, "a/two": 60.0}, {"a/one": 70.0, "a/two": 55.0}
    (axes,) = report.figure(before, after).axes
    arrows = {text.xyann[0]: text.xy[0] for text in axes.texts}
    assert arrows == {50.0: 70.0, 60.0: 55.0}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a/two", "a/one"]
