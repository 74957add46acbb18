"""Where the wall time of a run goes, over all its restarts."""

import time
from collections.abc import Mapping, Sequence

import psutil
from tqdm import tqdm

PARTS = {
    "step": "training",
    "start": "starting",
    "compile": "compiling",
    "data": "waiting for data",
    "eval": "evaluating",
    "save": "saving",
    "lost": "in steps that a restart did again",
}
_PREFIX, _SUFFIX = "time/", "_s"


class Clock:
    """Seconds by part, from the start of this process on top of those of the run's earlier ones.

    Args:
      rows: of the run's metrics so far, with those that are to be done again.
      start_step: the step that this process goes on from.
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = (), start_step: int = 0):
        timed = [row for row in rows if f"{_PREFIX}step{_SUFFIX}" in row]
        kept = [row for row in timed if row["step"] <= start_step]
        self.seconds = _seconds(kept[-1] if kept else {})
        if timed:
            done_before = sum(_seconds(timed[-1]).values())
            self.seconds["lost"] += max(0.0, done_before - sum(self.seconds.values()))
        # Of this process, whose imports have taken a while already.
        running = time.time() - psutil.Process().create_time()
        self._mark = time.monotonic() - running

    def lap(self, part: str) -> None:
        """Counts the time since the last call as that part's."""
        now = time.monotonic()
        self.seconds[part] += now - self._mark
        self._mark = now

    def row(self) -> dict[str, float]:
        """Seconds so far, as names and values of metrics."""
        return {f"{_PREFIX}{part}{_SUFFIX}": value for part, value in self.seconds.items()}

    def summary(self) -> str:
        """One line for people."""
        total = sum(self.seconds.values())
        parts = [
            f"{100 * seconds / total:.0f} % {PARTS[part]}"
            for part, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])
            if seconds >= total / 200
        ]
        return f"{tqdm.format_interval(total)} in all: {', '.join(parts)}"


def _seconds(row: Mapping[str, float]) -> dict[str, float]:
    return {part: float(row.get(f"{_PREFIX}{part}{_SUFFIX}", 0)) for part in PARTS}
