"""What a benchmark returns, its intervals, and how one is found by name.

A benchmark is a file benchmarks/<name>.py with `run(encoder, **options) -> Scores`; nothing else
has to be edited to add one. Every score is in percent (0 to 100), as papers print it, on the
terminal and in json alike.

A score that is no number (NaN) never makes an example right: outcomes go through decided(), and
what could not be decided is counted. A figure that rests on ties or on such scores for most of its
examples says nothing of the model, whatever the cause (a tokenizer that is not the model's, towers
that diverged): it is said above the table and under "warnings" in json.
"""

import dataclasses
import functools
import importlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from errors import MissingFileError, UserError
from options import Options, check_known, modules_that_define

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Score:
    """One figure of a benchmark.

    Attributes:
      name: what is measured, in the benchmark's own words.
      value: percent.
      count: the number of examples behind it.
      ties: how many of them had a tie; the benchmark's docstring says what a tie counts as.
      low, high: ends of the 95 % bootstrap interval, in percent.
      undecided: how many of them had a score that is no number; they count as wrong.
    """

    name: str
    value: float
    count: int
    ties: int
    low: float
    high: float
    undecided: int = 0

    @property
    def warning(self) -> str | None:
        """Why the figure says nothing of the model, or None."""
        for number, what in (
            (self.undecided, "had scores that are no numbers"),
            (self.ties, "were ties"),
        ):
            if 2 * number > self.count:
                return f"{self.name}: {number} of {self.count} {what}"
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            return f"{self.name}: the figure is no finite number"
        return None


@dataclasses.dataclass(frozen=True)
class Scores:
    """The figures of one benchmark, and how many examples were left out, by subset."""

    scores: tuple[Score, ...]
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Score:
        return {score.name: score for score in self.scores}[name]

    def to_json(self) -> dict:
        """Plain dicts: {"scores": {name: {value, count, ..}}, "left_out": .., "warnings": ..}.

        A figure that is no finite number is None: json has no other word for it.
        """
        rows = [
            {key: _json_number(value) for key, value in dataclasses.asdict(score).items()}
            for score in self.scores
        ]
        return {
            "scores": {row.pop("name"): row for row in rows},
            "left_out": dict(self.left_out),
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What must be said before any of the figures is believed, a line each."""
        return [score.warning for score in self.scores if score.warning]

    def table(self, title: str) -> str:
        """The figures as text for a terminal, one line each."""
        width = max(len(name) for name in [title, *(score.name for score in self.scores)])
        lines = []
        if warnings := self.warnings():
            lines.append(
                f"WARNING: {len(warnings)} of {len(self.scores)} figures say nothing of this model "
                f"({warnings[0]}): is the tokenizer the model's, and did its training converge?"
            )
        lines += [f"{title:<{width}}       %   95 % interval    count   ties"]
        lines += [
            f"{s.name:<{width}}  {s.value:6.2f}  {s.low:6.2f} - {s.high:6.2f}  {s.count:7d}"
            f"  {s.ties:5d}"
            for s in self.scores
        ]
        if any(self.left_out.values()):
            parts = ", ".join(f"{name} {n}" for name, n in self.left_out.items() if n)
            lines.append(f"left out: {sum(self.left_out.values())} examples ({parts})")
        return "\n".join(lines)


def _json_number(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decided(right: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Outcomes of examples, where a score that is no number decides nothing.

    Args:
      right: bool [n], by the benchmark's own rule, such as margin > 0.
      scores: float [n] or [n, k], all that the rule compared.

    Returns:
      float64 [n]: 1 where right, 0 where not, NaN where a score is NaN. summarise() counts NaN as
      wrong, and says how many there are.
    """
    unknown = np.isnan(scores).reshape(len(right), -1).any(axis=1)
    return np.where(unknown, np.nan, right.astype(np.float64))


def resampled_means(
    outcomes: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """Means of bootstrap resamples of the outcomes.

    Args:
      outcomes: [n], 1 where an example is right and 0 where it is not.
      groups: int [n], examples that are drawn together because they depend on each other (the
        captions of one image); by default every example is drawn on its own.

    Returns:
      float64 [RESAMPLES], the same for the same arguments.
    """
    groups = (
        np.arange(len(outcomes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    totals, sizes = np.bincount(groups, weights=outcomes), np.bincount(groups)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        picks = rng.integers(len(sizes), size=len(sizes))
        means.append(totals[picks].sum() / sizes[picks].sum())
    return np.array(means)


def macro(names: Iterable[str]) -> dict[str, float]:
    """Weights of an unweighted mean over subsets."""
    names = list(names)
    return {name: 1 / len(names) for name in names}


def micro(counts: Mapping[str, int], names: Iterable[str]) -> dict[str, float]:
    """Weights of a mean over the examples of several subsets."""
    names = list(names)
    total = sum(counts[name] for name in names)
    return {name: counts[name] / total for name in names}


Aggregate = Mapping[str, float] | tuple[Sequence[str], Callable]


def aggregated(aggregate: Aggregate, values: Mapping[str, np.ndarray | float]):
    """A sum of weight times value over subsets, or a function of the values of subsets."""
    if isinstance(aggregate, tuple):
        names, function = aggregate
        return function(*(values[name] for name in names))
    return sum(weight * values[name] for name, weight in aggregate.items())


def summarise(
    outcomes: Mapping[str, np.ndarray],
    ties: Mapping[str, int],
    aggregates: Mapping[str, Aggregate],
    groups: Mapping[str, np.ndarray] | None = None,
) -> tuple[Score, ...]:
    """The score of every subset, then every aggregate of their means, with intervals.

    Intervals of aggregates are stratified: each subset is resampled within itself.

    Args:
      outcomes: subset -> [n] of 0 and 1, n > 0, or NaN where nothing was decided, see decided().
      ties: subset -> the number of its examples with a tie.
      aggregates: name -> {subset: weight}, see macro() and micro(), or (subsets, function of
        their means, which are arrays of resamples too); all subsets must be there.
      groups: subset -> int [n], see resampled_means().
    """
    groups = groups or {}
    undecided = {name: int(np.isnan(right).sum()) for name, right in outcomes.items()}
    outcomes = {name: np.nan_to_num(right, nan=0.0) for name, right in outcomes.items()}
    means = {name: float(np.mean(right)) for name, right in outcomes.items()}
    resampled = {
        # A seed for each subset: resamples of different subsets must be independent.
        name: resampled_means(right, groups.get(name), seed=seed)
        for seed, (name, right) in enumerate(outcomes.items())
    }
    scores = []
    for name, aggregate in {**{name: {name: 1.0} for name in outcomes}, **aggregates}.items():
        low, high = np.percentile(aggregated(aggregate, resampled), [2.5, 97.5])
        subsets = aggregate[0] if isinstance(aggregate, tuple) else aggregate
        scores.append(
            Score(
                name=name,
                value=100 * float(aggregated(aggregate, means)),
                count=sum(len(outcomes[subset]) for subset in subsets),
                ties=sum(ties[subset] for subset in subsets),
                low=100 * float(low),
                high=100 * float(high),
                undecided=sum(undecided[subset] for subset in subsets),
            )
        )
    return tuple(scores)


def read_json(path: Path):
    """The contents of a json file.

    Raises:
      UserError: the file is not there, or is not json; the file is named.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such annotation file") from None
    except ValueError as error:
        raise UserError(f"{path}: not a json file ({error})") from None


def available() -> list[str]:
    """Names of the benchmarks there are: the files of this folder that define run()."""
    return modules_that_define("run", Path(__file__).parent)


def find(name: str) -> tuple[Callable[..., Scores], Options]:
    """run() of benchmarks/<name>.py, and the options that it takes.

    Raises:
      UserError: no such benchmark; says which there are and the nearest.
    """
    check_known("benchmark", name, available())
    run = importlib.import_module(f"benchmarks.{name}").run
    return run, Options(run, f"benchmark {name}", handed=1, section=f"--eval.{name}")


def load(name: str, options: Mapping) -> Callable[..., Scores]:
    """The benchmark of that name, its options bound: load(name, options)(encoder) -> Scores.

    Options that are None or empty count as not given.

    Raises:
      UserError: no such benchmark, no such option, or one that is needed is not given.
    """
    run, takes = find(name)
    set_options = {key: value for key, value in options.items() if value not in (None, "")}
    return functools.partial(run, **takes.arguments(set_options))
