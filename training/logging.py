"""What a run tells: metrics.jsonl and TensorBoard for machines, a bar or lines for people."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import tensorboardX
from tqdm import tqdm

from training.checkpoints import write_atomically

METRICS_FILE = "metrics.jsonl"


class MetricLogger:
    """Logs scalars by step, from the first process only.

    On a terminal it shows a progress bar with the time left, elsewhere a line per call. A run that
    goes on after `start_step` drops what the killed one had logged beyond it.
    """

    def __init__(self, workdir: Path, *, start_step: int, total_steps: int, batch_size: int):
        self._active = jax.process_index() == 0
        self._start = self._last_step = start_step
        self._total, self._batch_size = total_steps, batch_size
        self._start_time = self._last_time = time.monotonic()
        if not self._active:
            return
        path = Path(workdir) / METRICS_FILE
        if path.exists():
            write_atomically(path, _until(path, start_step) if start_step else "")
        self._file = path.open("a", buffering=1)
        self._board = tensorboardX.SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=start_step + 1
        )
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", smoothing=0.05)

    def train(self, step: int, metrics: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Logs a training step's metrics and the run's counts, with the speed since last time."""
        now = time.monotonic()
        rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        metrics = {**metrics, "steps_per_s": rate, "examples_per_s": rate * self._batch_size}
        self.write(step, {**metrics, **counts})
        if not self._active:
            return
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{metrics['loss']:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        left = (self._total - step) * (now - self._start_time) / max(step - self._start, 1)
        self.say(
            f"step {step}/{self._total}  loss {metrics['loss']:.4f}  "
            f"{metrics['examples_per_s']:.1f} examples/s  {tqdm.format_interval(left)} left"
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs scalars to metrics.jsonl and TensorBoard."""
        if not self._active:
            return
        metrics = {name: float(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        """Prints a message without breaking the bar."""
        if self._active:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
        self._board.close()
        self._file.close()


def _until(path: Path, step: int) -> str:
    # A kill may have cut the last line short.
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return "".join(line for line in lines if json.loads(line)["step"] <= step)
