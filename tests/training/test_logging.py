"""What a run tells: the same to file and TensorBoard after a kill, a bar or lines to people."""

import contextlib
import io
import json
import re
import resource
import shutil
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.logging import METRICS_FILE, MetricLogger


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def logger(workdir, start_step=0):
    opened = MetricLogger(workdir, start_step=start_step, total_steps=6, batch_size=8)
    return contextlib.closing(opened)


def in_file(workdir):
    rows = map(json.loads, (workdir / METRICS_FILE).read_text().splitlines())
    return [(row["step"], row["loss"]) for row in rows]


def in_tensorboard(workdir):
    board = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars("loss")]


@pytest.mark.parametrize("start", [0, 2])
def test_a_kill_loses_nothing_before_the_checkpoint_and_keeps_nothing_after(tmp_path, start):
    killed = tmp_path / "killed"
    with logger(tmp_path) as first:
        for step in range(5):
            first.write(step, {"loss": step})
        shutil.copytree(tmp_path, killed)  # what a kill leaves on the disk
    assert in_tensorboard(killed) == in_file(killed) == [(step, step) for step in range(5)]
    steps = range(start + 1, 7) if start else range(7)
    with logger(killed, start) as second:
        for step in steps:
            second.write(step, {"loss": 10 + step})
    expected = [(0, 0), (1, 1), (2, 2)] if start else []
    expected += [(step, 10 + step) for step in steps]
    assert in_tensorboard(killed) == in_file(killed) == expected


@contextlib.contextmanager
def files_of_2000_bytes():
    """What a run meets where a quota ends. Not a fixture: pytest's own output may be a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_one_line_and_no_endless_wait(tmp_path):
    problem = r"cannot log step \d+ in [^\n]*: File too large; make ro"
    with files_of_2000_bytes(), logger(tmp_path) as full:
        with pytest.raises(OSError, match=problem):
            for step in range(200):
                full.write(step, {"loss": 1.0})
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[:-1]] == list(range(len(lines) - 1))


def test_speed_and_time_left_are_of_this_start(tmp_path, clock, capsys):
    with logger(tmp_path, start_step=2) as lines:
        clock[0] += 20
        lines.train(3, {"loss": 1.25}, {"truncated": 4})
        clock[0] += 10
        lines.train(4, {"loss": 0.5}, {"truncated": 5})
    # 2 steps took 30 s, so 2 more take 30 s; the last took 10 s for 8 examples.
    first, second = capsys.readouterr().err.splitlines()
    assert first == "step 3/6  loss 1.2500  0.4 examples/s  01:00 left"
    assert second == "step 4/6  loss 0.5000  0.8 examples/s  00:30 left"
    row = json.loads((tmp_path / METRICS_FILE).read_text().splitlines()[-1])
    assert (row["steps_per_s"], row["examples_per_s"], row["truncated"]) == (0.1, 0.8, 5)


def test_time_left_does_not_count_the_time_of_compiling(tmp_path, clock, capsys):
    with logger(tmp_path) as lines:
        clock[0] += 1000
        lines.clock.lap("compile")
        lines.train(1, {"loss": 1.0}, {})
        for step in (2, 3):
            clock[0] += 10
            lines.clock.lap("step")
            lines.train(step, {"loss": 1.0}, {})
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith("examples/s, compiling included")
    assert [line.split()[-2:] for line in others] == [["00:40", "left"], ["00:30", "left"]]


def test_a_terminal_gets_a_bar_with_the_time_left(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with logger(tmp_path, start_step=2) as bar:
        bar.say("compiling")
        time.sleep(0.2)  # tqdm draws no more often
        bar.train(4, {"loss": 0.5}, {})
    shown = terminal.getvalue()
    assert "compiling\n" in shown
    last = shown.rstrip().split("\r")[-1]
    assert re.search(r"67%.*4/6 \[\d\d:\d\d<\d\d:\d\d.*loss=0.5\]", last), last
