"""Sweeps over a grid with a stand-in for train.py that is told what to do and does nothing else."""

import json

import numpy as np
import pytest

from errors import UserError
from studies import runs, sweep
from training.logging import read_metrics

# loss = learning_rate * 1000 + seed, two rows; fails where the file "broken" lies beside it.
FAKE = """
import json, os, pathlib, sys
options = dict(a[2:].split("=", 1) for a in sys.argv[1:])
here = pathlib.Path(__file__).parent
work = pathlib.Path(options["workdir"])
with open(here / "calls", "a") as calls:
    calls.write(f"{work.name} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\\n")
if (here / "broken").exists() and options["config.seed"] == "1":
    sys.exit("error: no luck")
loss = 1000 * float(options["config.optimizer.learning_rate"]) + int(options["config.seed"])
rows = [{"step": 1, "loss": 9.0}, {"step": 2, "loss": loss, "steps_per_s": 3.0}]
(work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""
GRID = "optimizer.learning_rate=1e-3,2e-3;seed=0..2"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(FAKE)
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path)
    return tmp_path


def calls(repository):
    return (repository / "calls").read_text().splitlines()


def go(repository, grid=GRID, places=({},), **options):
    arguments = ["--config=x.py", "--config.batch_size=3"]
    return sweep.sweep(arguments, grid, repository / "out", places, **options)


@pytest.mark.slow
def test_a_sweep_trains_and_goes_on(tmp_path):
    """With train.py itself: two seeds, of which the second time none is trained."""
    small = {
        "method.name": "clip",
        "batch_size": 8,
        "total_steps": 2,
        "log_every_steps": 1,
        "optimizer.warmup_steps": 1,
        "data.options.length": 16,
        "data.text_rows": (1.0,),
        "eval.benchmarks": "",
    }
    options = [f"--config.{key}={value}" for key, value in small.items()]
    arguments = [f"--config={runs.REPOSITORY}/tpu_configs/world/clip.py", *options]
    told, logged = [], []
    for _ in range(2):
        told.append(sweep.sweep(arguments, "seed=0,1", tmp_path, ({},)))
        files = sorted(tmp_path.glob("*seed*/metrics.jsonl"))
        logged.append([list(read_metrics(file)) for file in files])
    assert told[0] == told[1] and told[0].startswith("2 of 2 runs are done")
    assert logged[0] == logged[1]
    first, second = ([row["loss"] for row in rows if "loss" in row] for rows in logged[0])
    assert len(first) == len(second) == 2 and first != second


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("seed=0..2", [{"seed": "0"}, {"seed": "1"}, {"seed": "2"}]),
        ("a=1", [{"a": "1"}]),
        ("a=1,2; b=x", [{"a": "1", "b": "x"}, {"a": "2", "b": "x"}]),
        ("t=(a,b),(c,);s=1", [{"t": "(a,b)", "s": "1"}, {"t": "(c,)", "s": "1"}]),
        ("t=[1, 2],none", [{"t": "[1, 2]"}, {"t": "none"}]),
    ],
)
def test_a_grid_is_every_combination(text, cells):
    assert sweep.parse_grid(text) == cells


@pytest.mark.parametrize("text", ["", "a", "a=", "a=1;a=2", "seed=4..0"])
def test_a_grid_that_says_nothing_is_refused(text):
    with pytest.raises(UserError, match="--grid"):
        sweep.parse_grid(text)


def test_means_and_intervals_over_seeds(repository):
    text = go(repository)
    assert text.startswith("6 of 6 runs are done")
    # Student's t with two degrees of freedom: 4.3027 * 1 / sqrt(3) = 2.484.
    assert "| 1e-3 | 3 | 2.000 ± 2.484 |" in text and "| 2e-3 | 3 | 3.000 ± 2.484 |" in text
    assert "steps_per_s" not in text
    assert (repository / "out" / "table.md").read_text().strip() in text
    rows = json.loads((repository / "out" / "results.json").read_text())
    np.testing.assert_allclose([values["loss"] for _, values in rows], [1, 2, 3, 2, 3, 4])


def test_what_is_done_is_not_done_again_and_a_failure_stops_no_other(repository):
    (repository / "broken").touch()
    with pytest.raises(UserError, match=r"train.py failed: see .*seed=1/log.txt; train.py failed"):
        go(repository)
    assert len(calls(repository)) == 6
    log = repository / "out" / "optimizer.learning_rate=1e-3,seed=1" / "log.txt"
    assert "no luck" in log.read_text()
    (repository / "broken").unlink()
    assert go(repository).startswith("6 of 6 runs are done")
    assert len(calls(repository)) == 8
    go(repository)
    assert len(calls(repository)) == 8


def test_devices_are_shared_out(repository):
    go(repository, places=runs.devices(["3", "5"]))
    assert {call.split()[1] for call in calls(repository)} <= {"3", "5"}
    go(repository, "optimizer.learning_rate=4e-3;seed=0,1", places=runs.cores(1))
    assert len(calls(repository)) == 8


def test_a_task_of_an_array_is_one_cell(repository):
    assert go(repository, task=4).startswith("1 of 6 runs are done")
    (call,) = calls(repository)
    assert call.strip() == "optimizer.learning_rate=2e-3,seed=1"
    with pytest.raises(UserError, match="--task=6, but the grid has 6 cells"):
        go(repository, task=6)


def test_columns_are_chosen(repository):
    assert "| optimizer.learning_rate | seeds | loss |" in go(repository, columns=["loss"])
    with pytest.raises(UserError, match="no run has logged los; there are: loss"):
        go(repository, columns=["los"])
