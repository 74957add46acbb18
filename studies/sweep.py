"""Trains an experiment over a grid of options and tells what came of it, with intervals over seeds.

    python -m studies.sweep --config=tpu_configs/quickstart.py --output=DIR \\
        --grid="optimizer.learning_rate=1e-5,1e-6;seed=0..4" [--jobs=2 | --devices=0,1,2,3]
    sbatch --array=0-9 --wrap='python -m studies.sweep ... --task=$SLURM_ARRAY_TASK_ID'

A run is train.py with the options of its cell, in a folder of that name; all other arguments
--config.key=value go to every run. What is done is not done again, a run that was stopped goes on,
and the table, DIR/table.md and DIR/results.json are of the runs that are there: the last scores and
metrics that each has logged, as means over seeds.
"""

import functools
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from errors import UserError
from studies.runs import (
    LOG,
    cores,
    devices,
    interval,
    run,
    side_by_side,
    table,
    take_arguments,
)
from training import cli
from training.logging import METRICS_FILE, read_metrics

SEED = "seed"
_NOT_TOLD = re.compile(r"step|steps_per_s|examples_per_s|wall|goodput|(grad|param)_norm/")
Cell = Mapping[str, str]  # dotted key of the config -> text of its value


def parse_grid(text: str) -> list[Cell]:
    """The cells of "key=a,b;seed=0..4": every combination, the last key changing first.

    A value with commas of its own stands in brackets: types=(a,b),(c,).

    Raises:
      UserError: an entry that is not key=value,value, or a key twice.
    """
    axes = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, values = entry.partition("=")
        if not equals or not values.strip():
            raise UserError(f"--grid has {entry!r}: give key=value,value or key=0..4")
        if key in axes:
            raise UserError(f"--grid names {key} twice")
        axes[key] = _values(values)
    if not axes:
        raise UserError('give --grid="key=value,value;seed=0..4"')
    return [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]


def _values(text: str) -> list[str]:
    if match := re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", text):
        first, last = map(int, match.groups())
        if last < first:
            raise UserError(f"--grid has {text}, which is empty: give the lower number first")
        return [str(number) for number in range(first, last + 1)]
    # At commas that no bracket holds.
    return [value.strip() for value in re.split(r",(?![^(\[]*[)\]])", text)]


def folder(output: Path, cell: Cell) -> Path:
    """Where a cell's run lies: DIR/optimizer.learning_rate=1e-5,seed=0."""
    name = ",".join(f"{key}={value}" for key, value in cell.items())
    return output / re.sub(r"[^\w.=,+-]", "_", name)


def train(cell: Cell, output: Path, arguments: Sequence[str], place: Mapping[str, str]) -> None:
    """Trains one cell, unless it is done.

    Raises:
      FileError: the run failed; names its log.
    """
    workdir = folder(output, cell)
    if (workdir / "done").is_file():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"running: {workdir.name}; see {workdir / LOG}", flush=True)
    options = [f"--config.{key}={value}" for key, value in cell.items()]
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(output / "compiled")}  # runs share their programs
    command = ["train.py", *arguments, *options, f"--workdir={workdir}"]
    run(command, workdir / LOG, {**compiled, **place})
    (workdir / "done").touch()
    print(f"done: {workdir.name}", flush=True)


def results(output: Path, cells: Sequence[Cell]) -> list[tuple[Cell, dict[str, float]]]:
    """The last value of everything that each run has logged, of the runs that are done."""
    rows = []
    for cell in cells:
        workdir = folder(output, cell)
        if (workdir / "done").is_file():
            last = {}
            for row in read_metrics(workdir / METRICS_FILE):
                last |= row
            rows.append((cell, {k: v for k, v in last.items() if not _NOT_TOLD.match(k)}))
    return rows


def report(rows: Sequence[tuple[Cell, Mapping[str, float]]], columns: Sequence[str] = ()) -> str:
    """A table in Markdown: a line for each cell without its seed, means with 95 % intervals."""
    groups = defaultdict(list)
    for cell, values in rows:
        key = tuple((name, value) for name, value in cell.items() if name != SEED)
        groups[key].append(values)
    if not groups:
        return "no run is done yet"
    names = list(columns) or sorted(set.intersection(*(set(v) for _, v in rows)))
    unknown = [name for name in names if not any(name in values for _, values in rows)]
    if unknown:
        logged = ", ".join(sorted(set().union(*(values for _, values in rows))))
        raise UserError(f"no run has logged {', '.join(unknown)}; there are: {logged}")
    axes = [name for name, _ in next(iter(groups))]
    lines = [
        [*(value for _, value in key), str(len(values))]
        + [interval([v[name] for v in values if name in v], digits=3) for name in names]
        for key, values in groups.items()
    ]
    return table([*axes, "seeds", *names], lines)


def sweep(
    arguments: Sequence[str],
    grid: str,
    output: Path,
    places: Sequence[Mapping[str, str]],
    task: int | None = None,
    columns: Sequence[str] = (),
) -> str:
    """Runs what is not done of a grid, and returns the table.

    Args:
      arguments: of train.py, for every run.
      places: see studies.runs.side_by_side.
      task: the number of the one cell to run, as of a SLURM array; None: all.
      columns: metrics to show; empty: all.
    """
    cells = parse_grid(grid)
    if task is not None and not 0 <= task < len(cells):
        raise UserError(f"--task={task}, but the grid has {len(cells)} cells: give 0 to its last")
    chosen = cells if task is None else [cells[task]]
    output.mkdir(parents=True, exist_ok=True)
    side_by_side(lambda cell, place: train(cell, output, arguments, place), chosen, places)
    rows = results(output, cells)
    (output / "results.json").write_text(json.dumps(rows, indent=1))
    text = report(rows, columns)
    (output / "table.md").write_text(text + "\n")
    return f"{len(rows)} of {len(cells)} runs are done\n\n{text}"


def main(arguments: Sequence[str]) -> None:
    args = flags.FLAGS
    if not arguments:
        raise UserError("name an experiment: --config=tpu_configs/quickstart.py")
    places = devices(args.devices) if args.devices else cores(args.jobs) if args.jobs else [{}]
    print(sweep(arguments, args.grid, Path(args.output).absolute(), places, args.task, args.show))


def define_flags() -> None:
    flags.DEFINE_string("grid", None, '"key=value,value;seed=0..4"', required=True)
    flags.DEFINE_string("output", None, "Folder of the runs and tables.", required=True)
    flags.DEFINE_integer("jobs", 0, "Runs at a time, each on a core; 0: one on all of them.")
    flags.DEFINE_list("devices", [], "GPUs, by number: one run at a time on each.")
    flags.DEFINE_integer("task", None, "Run this cell alone, as $SLURM_ARRAY_TASK_ID of an array.")
    flags.DEFINE_list("show", [], "Metrics in the table; default: all that every run has logged.")


if __name__ == "__main__":
    cli.run(functools.partial(main, take_arguments()), define_flags)
