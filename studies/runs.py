"""Commands run side by side, each on a core or a device of its own, and means over their seeds."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from scipy import stats

from errors import FileError

REPOSITORY = Path(__file__).parents[1]
LOG = "log.txt"


def side_by_side(task: Callable, items: Iterable, places: Sequence[Mapping[str, str]]) -> None:
    """Calls task(item, place) for each item, as many at a time as there are places.

    Args:
      places: environment variables of each, see cores() and devices().

    Raises:
      FileError: some failed, after the others were done; all are named.
    """
    free = SimpleQueue()
    for place in places:
        free.put(place)

    def at_a_place(item):
        place = free.get()
        try:
            task(item, place)
        except FileError as error:
            return str(error)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        failed = [problem for problem in pool.map(at_a_place, items) if problem]
    if failed:
        raise FileError("; ".join(failed))


def cores(jobs: int) -> list[dict[str, str]]:
    """Places of one core of the CPU each."""
    # XLA takes and gives back its scratch memory at every step. In huge pages that is cheap, and a
    # small model's step takes four fifths of the time (docs/performance.md).
    memory = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    chosen = sorted(os.sched_getaffinity(0))[:jobs]
    return [memory | {"TUTELAGE_CORE": str(core)} for core in chosen]


def devices(names: Sequence[str]) -> list[dict[str, str]]:
    """Places of one GPU each, by their numbers."""
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names]


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs one of our commands, its output going to the end of a log.

    Raises:
      FileError: it failed; names the log.
    """
    environment = dict(environment or {})
    with _on_core(environment.pop("TUTELAGE_CORE", None)), open(log, "a") as output:
        ended = subprocess.run(
            [sys.executable, REPOSITORY / command[0], *command[1:]],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if ended.returncode:
        raise FileError(f"{command[0]} failed: see {log}")


def take_arguments() -> list[str]:
    """Takes --config and --config.key=value off the command line: they are for its runs."""
    taken = [argument for argument in sys.argv[1:] if re.match(r"--config[.=]", argument)]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in taken]
    return taken


@contextlib.contextmanager
def _on_core(core: str | None) -> Iterator[None]:
    """Puts this thread, and so the processes that it starts, on one core."""
    if core is None:
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def interval(values: Sequence[float], digits: int = 1) -> str:
    """Mean and half the 95 % interval of Student's t over seeds."""
    if len(values) < 2:
        return f"{np.mean(values):.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
