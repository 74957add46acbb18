"""What a run tells: metrics.jsonl, TensorBoard, trackers; a bar or lines for people."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from absl import logging
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter, register_writer_factory
from tqdm import tqdm

from errors import FileError
from files import dump_json, finite_or_none, write_text
from paths import SCHEMES, Growing, as_path, make_folder, read_bytes
from training.goodput import Clock
from training.trackers import open_trackers

METRICS_FILE = "metrics.jsonl"


class _Boards:
    """Where tensorboardX writes events whose name has one of our schemes."""

    open = Growing


for _scheme in SCHEMES:
    register_writer_factory(_scheme, _Boards)


class MetricLogger:
    """Logs scalars by step, from the first process only.

    On a terminal it shows a progress bar with the time left, elsewhere a line per call. A run that
    goes on after `start_step` drops what the killed one had logged beyond it.

    Args:
      trackers: names, see training/trackers.py; they show the config, too.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        trackers: Sequence[str] = (),
        config: Mapping | None = None,
    ):
        self._active = jax.process_index() == 0
        self.clock = Clock()
        self._start = self._last_step = start_step
        self._total, self._batch_size = total_steps, batch_size
        self._start_time = self._last_time = time.monotonic()
        self._compiling = 0.0
        if not self._active:
            return
        self._workdir = as_path(workdir)
        path, board = self._workdir / METRICS_FILE, self._workdir / "tensorboard"
        if path.exists():
            rows = read_metrics(path)
            self.clock = Clock(rows, start_step)
            self._compiling = self.clock.seconds["compile"]
            kept = [row for row in rows if row["step"] <= start_step]
            rows = (dump_json(finite_or_none(row), path) for row in kept if start_step)
            write_text(path, "".join(f"{row}\n" for row in rows))
        self._trackers = open_trackers(trackers, self._workdir, config or {})
        self._file = Growing(path)
        make_folder(board)
        # Not a SummaryWriter: on a full disk its thread dies, and the next metric waits for ever.
        self._board = RecordWriter(str(board / f"events.out.tfevents.{time.time_ns()}"))
        self._event(file_version="brain.Event:2")
        purge_from = start_step + 1 if start_step else 0
        self._event(step=purge_from, session_log=SessionLog(status=SessionLog.START))
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", smoothing=0.05)

    def train(self, step: int, metrics: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Logs a training step's metrics and the run's counts, with the speed since last time."""
        now = time.monotonic()
        rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        metrics = {**metrics, "steps_per_s": rate, "examples_per_s": rate * self._batch_size}
        self.write(step, {**metrics, **counts, **self.clock.row()})
        if not self._active:
            return
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{metrics['loss']:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        line = (
            f"step {step}/{self._total}  loss {metrics['loss']:.4f}  "
            f"{metrics['examples_per_s']:.1f} examples/s"
        )
        if self.clock.seconds["compile"] > self._compiling:
            # The steps to come take no such time: from here on they are timed anew.
            self._compiling = self.clock.seconds["compile"]
            self._start, self._start_time = step, now
            line += ", compiling included"
        else:
            left = (self._total - step) * (now - self._start_time) / max(step - self._start, 1)
            line += f"  {tqdm.format_interval(left)} left"
        self.say(line)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs scalars to metrics.jsonl and TensorBoard.

        Raises:
          FileError: they could not be written, for want of room.
        """
        if not self._active:
            return
        metrics = {name: float(value) for name, value in metrics.items()}
        try:
            row = {"step": step, **finite_or_none(metrics)}
            self._file.write(f"{dump_json(row, METRICS_FILE)}\n".encode())
            self._file.flush()
            for name, value in metrics.items():
                self._event(step=step, summary=summary.scalar(name, value))
            self._board.flush()
        except OSError as error:
            raise FileError(
                f"cannot log step {step} in {self._workdir}: {error.strerror or error}; make room, "
                "and the same command goes on from the last checkpoint"
            ) from error
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def _event(self, **fields) -> None:
        self._board.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def say(self, text: str) -> None:
        """Prints a message without breaking the bar."""
        if self._active:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
        for tracker in self._trackers:
            tracker.close()
        for opened in (self._board, self._file):
            with contextlib.suppress(OSError):  # all is on the disk, or write() has said why not
                opened.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, without lines that a kill or a full disk has torn."""
    rows = []
    for number, line in enumerate(read_bytes(path).decode(errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append(row | {"step": int(row["step"])})
        except (ValueError, KeyError, TypeError):
            logging.warning("%s, line %d is torn, and left out: %.40r", path, number, line)
    return rows
