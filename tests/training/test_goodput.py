"""Where the wall time of a run goes, over restarts."""

import re
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.training import linear
from tests.training.test_loop import logged, run
from training.goodput import PARTS, Clock


def times(row):
    return {part: row[f"time/{part}_s"] for part in PARTS}


def test_all_time_is_some_parts():
    clock = Clock()
    clock.lap("start")
    started = dict(clock.seconds)
    time.sleep(0.05)
    clock.lap("data")
    time.sleep(0.1)
    clock.lap("step")
    assert started["start"] > 0  # this process has run for a while
    assert clock.seconds["data"] >= 0.05 and clock.seconds["step"] >= 0.1
    assert sum(clock.seconds.values()) - started["start"] < 60
    assert "% training" in clock.summary() or "% starting" in clock.summary()


def test_what_a_restart_does_again_is_lost():
    def row(number, **seconds):
        return {"step": number} | {f"time/{part}_s": seconds.get(part, 0.0) for part in PARTS}

    rows = [row(1, step=1, compile=9), {"step": 2, "x/score": 1}, row(2, step=3, compile=9)]
    rows += [row(3, step=4.5, compile=9, data=0.5)]
    assert Clock(rows, 2).seconds == dict.fromkeys(PARTS, 0.0) | {
        "step": 3,
        "compile": 9,
        "lost": 2,
    }
    assert Clock(rows, 3).seconds["lost"] == 0
    assert Clock(rows, 0).seconds["lost"] == 14


def test_a_run_tells_where_its_time_went_over_restarts(tmp_path, capsys, monkeypatch):
    # Or all the tests before this one would be its start.
    process = SimpleNamespace(create_time=time.time)
    monkeypatch.setattr("training.goodput.psutil.Process", lambda: process)
    run(tmp_path, stop_at=5)
    first = times(logged(tmp_path)[-1])
    assert first["compile"] > 0 < first["step"] and first["lost"] == 0
    assert re.search(r"in all: \d+ % \w+", capsys.readouterr().err)
    (tmp_path / "checkpoints" / "5").rename(tmp_path / "gone")  # as if it had been killed at 5
    run(tmp_path)
    rows = {row["step"]: times(row) for row in logged(tmp_path)}
    lost = sum(first.values()) - sum(rows[3].values())
    assert rows[12]["lost"] == pytest.approx(lost)
    assert all(rows[12][part] >= rows[3][part] for part in PARTS)


def test_data_that_came_while_the_step_was_at_work_kept_nobody_waiting(tmp_path):
    def slow_batches():
        for batch in linear.batches():
            time.sleep(0.05)
            yield batch

    def slowed(step):
        @jax.jit
        def late(x):
            start = jnp.full((600, 600), x)
            return x + 0 * jnp.sum(lax.fori_loop(0, 30, lambda i, a: jnp.tanh(a @ a), start))

        def run_step(state, batch, measured):
            state, metrics = step(state, batch, measured)
            return state, {**metrics, "loss": late(metrics["loss"])}

        return run_step

    run(tmp_path, batches=slow_batches(), log_every=6, total=6, wrap=slowed)
    seconds = times(logged(tmp_path)[-1])
    assert seconds["data"] < 0.3  # three were waited for: the first, and those after a checkpoint
    assert seconds["step"] > 0.3
