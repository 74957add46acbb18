"""Fine-tunes the shipped weights by every method and writes what it did to docs/results.md.

    python -m perf.evidence --output=DIR [--jobs=2] [--seeds=1,2,3,4,5]
    python -m perf.evidence --output=DIR --report=docs/results.md    # of the runs that are there

A run is `train.py` and `eval.py --wise_ft` as a user would call them, with another seed and
learning rate; a run that is done is not done again, so the command goes on where it was stopped.
Every method gets the same steps, seeds and learning rates, and all are shown.
"""

import functools
import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from scipy import stats

from training import cli

REPOSITORY = Path(__file__).parents[1]
WEIGHTS = REPOSITORY / "weights" / "world"
LEARNING_RATES = ("3e-4", "1e-3", "2e-3")
ALPHAS = ("0.2", "0.4", "0.6", "0.8", "1")  # of WiSE-FT; 1: the run itself
METHODS = ("clip", "negclip", "ce_clip", "igc_tgc", "degla", "degla_frozen")
# DeGLA less one part, at each learning rate too: name -> (config, flags).
ABLATIONS = {
    "degla without IGC": ("degla", ("--config.method.options.igc_weight=0.0",)),
    "degla without TGC": ("degla", ("--config.method.options.tgc_weight=0.0",)),
    "degla, released mask": ("degla", ("--config.method.options.tgc_mask=released",)),
}
VARIANTS = {name: (name, ()) for name in METHODS} | ABLATIONS
LEARNT, KEPT = "composition", "zero_shot_unseen"


class Run(NamedTuple):
    variant: str
    learning_rate: str
    seed: int

    def folder(self, output: Path) -> Path:
        name = self.variant.replace(",", "").replace(" ", "_")
        return output / name / f"lr{self.learning_rate}" / f"seed{self.seed}"


Scores = Mapping[Run, Mapping[str, Mapping[str, float]]]  # run -> alpha -> name -> percent


def perform(run: Run, output: Path, cores: SimpleQueue) -> None:
    """Trains and scores one run on a core of its own, unless it was done before."""
    folder = run.folder(output)
    results = folder / "results.json"
    if results.is_file():
        return
    config, options = VARIANTS[run.variant]
    folder.mkdir(parents=True, exist_ok=True)
    commands = (
        (
            "train.py",
            f"--config=tpu_configs/world_{config}.py",
            f"--config.seed={run.seed}",
            f"--config.optimizer.learning_rate={run.learning_rate}",
            f"--workdir={folder}",
            *options,
        ),
        (
            "eval.py",
            f"--workdir={folder}",
            "--eval.benchmarks=world",
            f"--wise_ft={WEIGHTS}",
            f"--alphas={','.join(ALPHAS)}",
            f"--output={results}",
        ),
    )
    core = cores.get()
    try:
        with open(folder / "log.txt", "w") as log:
            for command in commands:
                subprocess.run(
                    [sys.executable, *command],
                    cwd=REPOSITORY,
                    # Runs of one variant share what XLA compiles.
                    env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(output / "compiled")},
                    preexec_fn=functools.partial(os.sched_setaffinity, 0, {core}),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=True,
                )
    finally:
        cores.put(core)
    print(f"done: {' '.join(map(str, run))}", flush=True)


def read(output: Path) -> Scores:
    """The scores of all the runs that are done."""
    scores = {}
    for run in all_runs(range(100)):
        results = run.folder(output) / "results.json"
        if results.is_file():
            line = json.loads(results.read_text())["wise_ft"]["alphas"]
            scores[run] = {
                alpha: {k: row["value"] for k, row in found["world"]["scores"].items()}
                for alpha, found in line.items()
            }
    return scores


def all_runs(seeds: Iterable[int]) -> list[Run]:
    # Whole seeds first, so that an unfinished set compares all methods.
    runs = itertools.product(seeds, LEARNING_RATES, VARIANTS)
    return [Run(variant, rate, seed) for seed, rate, variant in runs]


def interval(values: Sequence[float]) -> str:
    """Mean and half the 95 % interval of Student's t over seeds."""
    if len(values) < 2:
        return f"{np.mean(values):.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{np.mean(values):.1f} ± {half:.1f}"


def frontier(points: Iterable[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The points that no other beats in both: x ascending, y descending."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return tuple(np.array(kept[::-1]).T)


def advantage(ours: Iterable[tuple[float, float]], theirs: Iterable[tuple[float, float]]) -> float:
    """By how much the first frontier lies above the second, as mean over the x that both reach.

    Between its points a frontier is the line that joins them. nan where the two share no x.
    """
    (x1, y1), (x2, y2) = frontier(ours), frontier(theirs)
    low, high = max(x1[0], x2[0]), min(x1[-1], x2[-1])
    if low > high:
        return float("nan")
    x = np.linspace(low, high, 101)
    return float(np.mean(np.interp(x, x1, y1) - np.interp(x, x2, y2)))


def points(
    scores: Scores, variant: str, seed: int, alphas: Sequence[str] = ("1",)
) -> list[tuple[float, float]]:
    """(composition, retention) of a variant's runs of one seed, at all learning rates."""
    return [
        (line[alpha][LEARNT], line[alpha][KEPT])
        for run, line in scores.items()
        if (run.variant, run.seed) == (variant, seed)
        for alpha in alphas
    ]


def report(scores: Scores, path: Path) -> None:
    """Writes the tables to path, and the figure beside it.

    Raises:
      ValueError: no run is done.
    """
    if not scores:
        raise ValueError("no run is done yet: run this without --report first")
    before = json.loads((WEIGHTS / "scores.json").read_text())["benchmarks"]["world"]["scores"]
    start = {name: row["value"] for name, row in before.items()}
    seeds = sorted({run.seed for run in scores})
    plane(scores, start).savefig(path.with_suffix(".png"), dpi=110)
    text = f"""\
    # Results on the embedded world

    `python -m perf.evidence --output=DIR --report={path}` writes this page from the runs of
    `python -m perf.evidence --output=DIR`: every method from `weights/world`, on the same scenes of
    the classes called seen, over the same learning rates, with seeds {", ".join(map(str, seeds))}.
    Scores are of test scenes, in percent; ± is half a 95 % interval of Student's t over seeds.
    Composition is the mean over types of negative and both class splits; retention is zero-shot
    top-1 on the classes that fine-tuning never showed.

    ![composition against retention]({path.with_suffix(".png").name})
    """
    sections = [
        textwrap.dedent(text),
        "## Every run\n\n" + runs_table(scores, start),
        "## Frontiers\n\n" + frontiers_table(scores, seeds),
    ]
    path.write_text("\n".join(sections), encoding="utf-8")


COLUMNS = (
    LEARNT,
    "unseen_swaps",
    "unseen_replace_relation",
    "zero_shot_seen",
    KEPT,
    "zero_shot_all",
    "image_to_text_recall@1",
)


def runs_table(scores: Scores, start: Mapping[str, float]) -> str:
    lines = [
        "| method | learning rate | seeds | " + " | ".join(n.replace("_", " ") for n in COLUMNS),
        "|---|---|---|" + "---|" * len(COLUMNS),
        "| before | | | " + " | ".join(f"{start[name]:.1f}" for name in COLUMNS),
    ]
    for variant, rate in itertools.product(VARIANTS, LEARNING_RATES):
        rows = [line["1"] for run, line in scores.items() if run[:2] == (variant, rate)]
        if rows:
            cells = (interval([row[name] for row in rows]) for name in COLUMNS)
            lines.append(f"| {variant} | {rate} | {len(rows)} | " + " | ".join(cells))
    return "".join(line.rstrip() + " |\n" for line in lines).replace("| |\n", "|\n")


def frontiers_table(scores: Scores, seeds: Sequence[int]) -> str:
    lines = [
        "By how many points of retention DeGLA's frontier (over learning rates) lies above another",
        "at matched composition: the mean over the compositions that both reach, paired by seed.\n",
        "| against | points |",
        "|---|---|",
    ]
    for variant in VARIANTS:
        for words, alphas in (("", ("1",)), (" + WiSE-FT", ALPHAS)):
            if variant == "degla" and not words:
                continue
            gains = [
                advantage(points(scores, "degla", seed), points(scores, variant, seed, alphas))
                for seed in seeds
            ]
            known = [gain for gain in gains if not np.isnan(gain)]
            lines.append(f"| {variant}{words} | {interval(known) if known else 'none shared'} |")
    return "\n".join(lines) + "\n"


def plane(scores: Scores, start: Mapping[str, float]) -> Figure:
    """Composition against retention: a line of means over seeds for each method."""
    drawing = Figure(figsize=(7, 5), layout="constrained")
    axes = drawing.add_subplot(xlabel="composition, %", ylabel="zero-shot on unseen classes, %")
    axes.plot(start[LEARNT], start[KEPT], "k*", markersize=12, label="before")
    for variant in METHODS:
        means = [
            np.mean([(line["1"][LEARNT], line["1"][KEPT]) for line in rows], axis=0)
            for rate in LEARNING_RATES
            if (rows := [line for run, line in scores.items() if run[:2] == (variant, rate)])
        ]
        if means:
            (drawn,) = axes.plot(*np.array(means).T, "o-", label=variant)
        for run, line in scores.items():
            if run.variant == variant:
                axes.plot(*(line["1"][n] for n in (LEARNT, KEPT)), ".", color=drawn.get_color())
    axes.grid(alpha=0.3)
    axes.legend()
    return drawing


def main() -> None:
    args = flags.FLAGS
    output = Path(args.output).absolute()
    if args.report:
        report(read(output), Path(args.report))
        return
    cores = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: args.jobs]:
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        runs = all_runs(map(int, args.seeds))
        list(pool.map(functools.partial(perform, output=output, cores=cores), runs))


def define_flags() -> None:
    flags.DEFINE_string("output", None, "Folder of the runs.", required=True)
    flags.DEFINE_integer("jobs", 2, "Runs at a time, each on a core of its own.")
    flags.DEFINE_list("seeds", ["1", "2", "3", "4", "5"], "Of the data order.")
    flags.DEFINE_string("report", None, "Write the tables and the figure here, and run nothing.")


if __name__ == "__main__":
    cli.run(main, define_flags)
