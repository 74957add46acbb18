"""The evidence's arithmetic, and its page from runs with made-up scores."""

import json
import subprocess
from queue import SimpleQueue

import numpy as np
import pytest

from perf import evidence
from perf.evidence import Run, advantage, frontier, interval


def test_frontier_is_what_nothing_beats():
    x, y = frontier([(60, 40), (80, 20), (70, 10), (70, 30), (50, 40)])
    np.testing.assert_array_equal(x, [60, 70, 80])
    np.testing.assert_array_equal(y, [40, 30, 20])


def test_advantage_is_the_height_between_frontiers_where_they_share_compositions():
    line = [(60, 50), (80, 30)]
    assert advantage(line, line) == 0
    assert advantage([(x, y + 7) for x, y in line], line) == pytest.approx(7)
    # Shared are 70 to 80: there the first is at 40 to 30, the second at 30 to 20.
    assert advantage(line, [(70, 30), (90, 10)]) == pytest.approx(10)
    assert np.isnan(advantage([(60, 50)], [(70, 40)]))


def test_interval_is_students():
    # t(0.975, 4) = 2.776, standard error sqrt(2.5 / 5).
    assert interval([1, 2, 3, 4, 5]) == "3.0 ± 2.0"
    assert interval([4.0]) == "4.0"


@pytest.fixture
def runs(tmp_path):
    """Every run done: DeGLA keeps 6 points more, and a learning rate gains 5 for 10."""
    for run in evidence.all_runs([1, 2]):
        step = evidence.LEARNING_RATES.index(run.learning_rate)
        score = dict.fromkeys(evidence.COLUMNS, 50.0) | {
            evidence.LEARNT: 70.0 + 5 * step + run.seed / 10,
            evidence.KEPT: 80.0 - 10 * step + 6 * run.variant.startswith("degla") + run.seed / 10,
        }
        rows = {name: {"value": value} for name, value in score.items()}
        line = {alpha: {"world": {"scores": rows}} for alpha in evidence.ALPHAS}
        folder = run.folder(tmp_path / "runs")
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"wise_ft": {"alphas": line}}))
    return tmp_path / "runs"


def test_report_shows_all_runs_and_the_frontiers(runs, tmp_path):
    page = tmp_path / "results.md"
    evidence.report(evidence.read(runs), page)
    lines = page.read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    shown = {(row[0].strip("| "), row[1]) for row in rows if len(row) > 2}
    assert {run[:2] for run in evidence.all_runs([1])} <= shown
    gains = {row[0].strip("| "): row[1].strip("| ") for row in rows if len(row) == 2}
    assert gains["negclip"] == gains["ce_clip + WiSE-FT"] == "6.0 ± 0.0"
    assert gains["degla_frozen"] == "0.0 ± 0.0"
    assert page.with_suffix(".png").stat().st_size > 1000


def test_report_of_nothing_says_so(tmp_path):
    with pytest.raises(ValueError, match="no run is done"):
        evidence.report(evidence.read(tmp_path), tmp_path / "results.md")


def test_a_run_is_train_and_eval_once(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command[1:]))
    cores = SimpleQueue()
    cores.put(0)
    run = Run("degla without IGC", "1e-3", 7)
    evidence.perform(run, tmp_path, cores)
    (train, *flags), (score, *_) = commands
    assert (train, score) == ("train.py", "eval.py") and cores.qsize() == 1
    assert {"--config.seed=7", "--config.method.options.igc_weight=0.0"} <= set(flags)
    (run.folder(tmp_path) / "results.json").write_text("{}")
    evidence.perform(run, tmp_path, cores)
    assert len(commands) == 2
