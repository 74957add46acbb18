"""Fine-tunes shipped weights by every method of a study, and writes what it did to a page.

    python -m studies.evidence --output=DIR [--study=world] [--seeds=1,2,3,4,5] \\
        [--jobs=2 | --devices=0,1,1] [--known=docs/results.json]
    python -m studies.evidence --output=DIR --report=docs/results.md    # of the runs that are there

A run is `train.py` and `eval.py --wise_ft` as a user would call them, with another seed and
learning rate; a run that is done is not done again, so the command goes on where it was stopped,
and with --known where another machine stopped, by the scores beside the page that came of it.
Every method gets the same steps, seeds and number of learning rates, and all are shown. Arguments
--config.key=value go to every run.
"""

import functools
import itertools
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from errors import MissingFileError, UserError
from files import read_json, read_object
from options import check_known
from studies import runs
from studies.runs import LOG, REPOSITORY, interval, table, take_arguments
from studies.studies import STUDIES, Study
from training import cli

WEIGHTS = REPOSITORY / "weights"
BEFORE = "before.json"  # scores of the weights themselves
NOTES = "## Notes\n"  # begins what is written by hand
WISE = " + WiSE-FT"


class Run(NamedTuple):
    variant: str
    learning_rate: str
    seed: int

    def folder(self, output: Path) -> Path:
        name = self.variant.replace(",", "").replace(" ", "_")
        return output / name / f"lr{self.learning_rate}" / f"seed{self.seed}"


Scores = Mapping[Run, Mapping[str, Mapping[str, float]]]  # run -> alpha -> name -> percent


def perform(
    study: Study,
    run: Run,
    output: Path,
    place: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> None:
    """Trains, with further arguments, and scores one run at a place of its own, unless it is done.

    Places: studies/runs.py.
    """
    folder = run.folder(output)
    results = folder / "results.json"
    if results.is_file():
        return
    config, options = study.variants[run.variant]
    folder.mkdir(parents=True, exist_ok=True)
    train = (
        "train.py",
        f"--config={REPOSITORY}/tpu_configs/{config}.py",
        f"--config.seed={run.seed}",
        f"--config.optimizer.learning_rate={run.learning_rate}",
        "--config.eval.benchmarks=",
        f"--workdir={folder}",
        *options,
        *arguments,
    )
    score = (
        "eval.py",
        f"--workdir={folder}",
        f"--eval.benchmarks={study.benchmark}",
        f"--wise_ft={WEIGHTS / study.weights}",
        f"--alphas={','.join(study.alphas)}",
        f"--output={results}",
    )
    print(f"running: {' '.join(map(str, run))}; see {folder / LOG}", flush=True)
    # Runs of one variant share what XLA compiles.
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(output / "compiled")}
    (folder / LOG).unlink(missing_ok=True)
    for command in (train, score):
        runs.run(command, folder / LOG, {**compiled, **place})
    print(f"done: {' '.join(map(str, run))}", flush=True)


def score_start(study: Study, output: Path) -> None:
    """Scores the weights that all runs start from, unless it was done before."""
    if (output / BEFORE).is_file():
        return
    output.mkdir(parents=True, exist_ok=True)
    config, options = study.variants[study.ours]
    command = (
        "eval.py",
        f"--workdir={WEIGHTS / study.weights}",
        f"--config={REPOSITORY}/tpu_configs/{config}.py",
        *options,
        f"--eval.benchmarks={study.benchmark}",
        f"--output={output / BEFORE}",
    )
    subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True
    )


def read_known(study: Study, path: Path) -> Scores:
    """The scores that report() wrote beside a page.

    Raises:
      UserError: the file holds something else, or a variant that the study has not.
    """
    rows = read_json(path)
    try:
        known = {Run(*run): line for *run, line in rows}
    except TypeError:
        raise UserError(
            f"{path} should hold [[variant, learning rate, seed, scores], ..], as --report writes"
        ) from None
    for run in known:
        check_known(f"variant of {path}", run.variant, study.variants)
    return known


def read(study: Study, output: Path, known: Scores) -> tuple[dict[str, float], Scores]:
    """The scores before, and those of all the runs that are done here or known.

    Raises:
      MissingFileError: no run is done.
    """

    def values(benchmarks):
        return {k: row["value"] for k, row in benchmarks[study.benchmark]["scores"].items()}

    scores = dict(known)
    for run in all_runs(study, range(100)):
        results = run.folder(output) / "results.json"
        if results.is_file():
            line = read_object(results)["wise_ft"]["alphas"]
            scores[run] = {alpha: values(scored) for alpha, scored in line.items()}
    if not scores or not (output / BEFORE).is_file():
        raise MissingFileError(f"{output}: no run is done yet: run this without --report first")
    return values(read_object(output / BEFORE)["benchmarks"]), scores


def all_runs(study: Study, seeds: Iterable[int]) -> list[Run]:
    # Whole seeds first, so that an unfinished set compares all methods.
    every = itertools.product(seeds, study.variants)
    return [Run(name, rate, seed) for seed, name in every for rate in study.rates_of(name)]


def frontier(points: Iterable[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The points that no other beats in both: x ascending, y descending."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return tuple(np.array(kept[::-1]).T)


def advantage(
    ours: Iterable[tuple[float, float]], theirs: Iterable[tuple[float, float]], at: Sequence[float]
) -> np.ndarray:
    """By how much the first frontier lies above the second at each x of `at`.

    Between its points a frontier is the line that joins them; left of the first it is level, for
    that run reaches what is asked, and more. nan where one does not reach x.
    """
    heights = (np.interp(at, *frontier(points), right=np.nan) for points in (ours, theirs))
    return np.subtract(*heights)


def report(study: Study, before: Mapping[str, float], scores: Scores, path: Path) -> None:
    """Writes the tables to path, a figure and all scores beside it; the page's NOTES are kept."""
    # What the page tells follows from the file beside it.
    scores = {run: _rounded(alphas) for run, alphas in scores.items()}
    plane(study, before, scores).savefig(path.with_suffix(".png"), dpi=110)
    lines = [json.dumps([*run, alphas]) for run, alphas in scores.items()]
    path.with_suffix(".json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    seeds = sorted({run.seed for run in scores})
    name = next(name for name, known in STUDIES.items() if known is study)
    command = f"python -m studies.evidence --study={name} --output=DIR"
    text = f"""\
    # {study.title}

    `{command} --report={path}`
    writes this page from the runs of `{command}`: every
    method from `weights/{study.weights}` over the same steps and data. Scores
    are of held-out scenes, in percent; ± is half a 95 % interval of Student's t over the seeds
    {", ".join(map(str, seeds))}. [All scores]({path.with_suffix(".json").name}): method, learning
    rate, seed, and the scores at each of WiSE-FT's alphas, 1 being the run itself.

    """
    sections = [
        textwrap.dedent(text) + textwrap.dedent(study.about),
        f"![what is learnt against what is kept]({path.with_suffix('.png').name})",
        "## Every run",
        runs_table(study, before, scores),
        f"## {study.ours} less the others",
        "Differences in points, paired by seed, at the same learning rate where both have it.",
        differences_table(study, scores),
        "## Frontiers",
        f"By how many points of {_words(study.kept)} the frontier of {study.ours} over learning\n"
        "rates, and over WiSE-FT's alphas where it says so, lies above another's at a level of\n"
        f"{_words(study.learnt)}, paired by seed; in parentheses how many seeds reach it,\n"
        "if not all do.",
        frontiers_table(study, before, scores),
    ]
    if path.is_file():
        _, heading, notes = path.read_text(encoding="utf-8").partition(NOTES)
        sections += [(heading + notes).strip()] * bool(notes)
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _rounded(alphas: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {
        alpha: {name: round(value, 2) for name, value in row.items()}
        for alpha, row in alphas.items()
    }


def _words(name: str) -> str:
    return name.replace("_", " ")


def _rows(
    scores: Scores, variant: str, rate: str, alpha: str = "1"
) -> dict[int, Mapping[str, float]]:
    """Seed -> scores of a variant's runs at a learning rate."""
    return {run.seed: line[alpha] for run, line in scores.items() if run[:2] == (variant, rate)}


def _lines(study: Study, scores: Scores) -> list[tuple[str, str]]:
    """(variant, learning rate) of the tables' lines: the study's, and others that were run."""
    planned = [(variant, rate) for variant in study.variants for rate in study.rates_of(variant)]
    lines = dict.fromkeys([*planned, *(run[:2] for run in scores)])
    return sorted(lines, key=lambda line: list(study.variants).index(line[0]))


def runs_table(study: Study, before: Mapping[str, float], scores: Scores) -> str:
    lines = [["before", "", "", *(f"{before[name]:.1f}" for name in study.columns)]]
    for variant, rate in _lines(study, scores):
        if rows := _rows(scores, variant, rate).values():
            cells = (interval([row[name] for row in rows]) for name in study.columns)
            lines.append([variant, rate, str(len(rows)), *cells])
    return table(["method", "learning rate", "seeds", *map(_words, study.columns)], lines)


def differences_table(study: Study, scores: Scores) -> str:
    lines = []
    rates = study.rates_of(study.ours)
    for variant, rate in _lines(study, scores):
        ours = _rows(scores, study.ours, rate if rate in rates else rates[0])
        theirs = _rows(scores, variant, rate)
        if variant != study.ours and (seeds := ours.keys() & theirs.keys()):
            lines.append([variant, rate, str(len(seeds))])
            for name in study.columns:
                lines[-1].append(interval([ours[s][name] - theirs[s][name] for s in seeds]))
    return table(["less", "learning rate", "seeds", *map(_words, study.columns)], lines)


def frontiers_table(study: Study, before: Mapping[str, float], scores: Scores) -> str:
    place = (study.learnt, study.kept)
    start = tuple(before[name] for name in place)

    def points(variant, seed, wise):
        return [start] * wise + [
            tuple(line[alpha][name] for name in place)
            for run, line in scores.items()
            if (run.variant, run.seed) == (variant, seed)
            for alpha in (study.alphas if wise else ("1",))
        ]

    lines = []
    sides = ((False, False), (False, True), (True, True))
    for variant, (ours_wise, wise) in itertools.product(study.methods, sides):
        known = ({run.seed for run in scores if run.variant == v} for v in (study.ours, variant))
        seeds = sorted(set.intersection(*known))
        if not seeds or (variant == study.ours and ours_wise == wise):
            continue
        gains = [
            advantage(
                points(study.ours, seed, ours_wise), points(variant, seed, wise), study.levels
            )
            for seed in seeds
        ]
        names = [study.ours + WISE * ours_wise, variant + WISE * wise]
        cells = (_where_reached(gain) for gain in np.transpose(gains))
        lines.append([*names, str(len(seeds)), *cells])
    levels = (f"at {level:g}" for level in study.levels)
    return table(["frontier of", "less that of", "seeds", *levels], lines)


def _where_reached(gains: np.ndarray) -> str:
    reached = gains[~np.isnan(gains)]
    if not reached.size:
        return "none"
    return interval(reached) + f" ({reached.size})" * (reached.size < gains.size)


def plane(study: Study, before: Mapping[str, float], scores: Scores) -> Figure:
    """What is learnt against what is kept: a line of means over seeds for each method.

    Its points are the learning rates, or WiSE-FT's alphas where only one rate was run.
    """
    drawing = Figure(figsize=(9, 5), layout="constrained")
    axes = drawing.add_subplot(
        xlabel=f"{_words(study.learnt)}, %", ylabel=f"{_words(study.kept)}, %"
    )
    place = [study.learnt, study.kept]
    axes.plot(*(before[name] for name in place), "k*", markersize=12, label="before")
    for variant in study.methods:
        rates = [rate for rate in study.rates_of(variant) if _rows(scores, variant, rate)]
        points = [(rate, "1") for rate in rates]
        if len(rates) == 1:
            points = [(rates[0], alpha) for alpha in study.alphas]
        clouds = [
            np.array([[row[name] for name in place] for row in rows.values()])
            for point in points
            if (rows := _rows(scores, variant, *point))
        ]
        if clouds:
            means = np.array([cloud.mean(axis=0) for cloud in clouds])
            (drawn,) = axes.plot(*means.T, "o-", label=variant)
            axes.plot(*np.concatenate(clouds).T, ".", alpha=0.5, color=drawn.get_color())
    axes.grid(alpha=0.3)
    drawing.legend(loc="outside right upper")
    return drawing


def main(arguments: Sequence[str]) -> None:
    args = flags.FLAGS
    study, output = STUDIES[args.study], Path(args.output).absolute()
    known = read_known(study, Path(args.known)) if args.known else {}
    score_start(study, output)
    if args.report:
        report(study, *read(study, output, known), Path(args.report))
        return
    chosen = [run for run in all_runs(study, map(int, args.seeds)) if run not in known]
    places = runs.devices(args.devices) if args.devices else runs.cores(args.jobs)
    runs.side_by_side(
        lambda run, place: perform(study, run, output, place, arguments), chosen, places
    )


def define_flags() -> None:
    flags.DEFINE_enum("study", "world", list(STUDIES), "Which experiments.")
    flags.DEFINE_string("output", None, "Folder of the runs.", required=True)
    flags.DEFINE_integer("jobs", 2, "Runs at a time, each on a core of its own.")
    flags.DEFINE_list("devices", [], "GPUs, by number: one run at a time for each that is named.")
    flags.DEFINE_list("seeds", ["1", "2", "3", "4", "5"], "Of the data order.")
    flags.DEFINE_string("known", "", "Scores of runs that were done elsewhere, beside a page.")
    flags.DEFINE_string("report", None, "Write the tables and the figure here, and train nothing.")


if __name__ == "__main__":
    cli.run(functools.partial(main, take_arguments()), define_flags)
