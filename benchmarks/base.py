"""What a benchmark is, asks and returns, and how one is found by name.

A benchmark is a file benchmarks/<name>.py with `run(encoder, **options) -> Scores`; nothing else
has to be edited to add one. Most are a reader of annotation files that yields items, made into
`run` by @benchmark, which states the scorer, the tie rule and the aggregates as data. Every score
is in percent (0 to 100), as papers print it, on the terminal and in json alike.

A score that is no number (NaN) never makes an example right, and what could not be decided is
counted. A figure that rests on ties or on such scores for most of its examples says nothing of the
model, whatever the cause (a tokenizer that is not the model's, towers that diverged): it is said
above the table and under "warnings" in json.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import intervals
from benchmarks.items import Item, Outcomes, check_items, grouped, with_images
from intervals import Aggregate, Mean, Sample
from options import Options, definition, modules_that_define, passed_on_to


@dataclasses.dataclass(frozen=True)
class Score:
    """One figure of a benchmark.

    Attributes:
      name: what is measured, in the benchmark's own words.
      value: percent, by the benchmark's own tie rule.
      count: the number of examples behind it; groups: of what is resampled (images).
      ties: how many of the examples had a tie.
      low, high: ends of the 95 % interval, in percent; interval: bootstrap or wilson.
      undecided: how many of them had a score that is no number; they count as wrong.
      chance: percent by guessing, where known.
      strict, argmax: percent where a tie is wrong, and where the first of the best counts.
      blind: percent of a model of the texts alone, where one was asked.
    """

    name: str
    value: float
    count: int
    ties: int
    low: float
    high: float
    undecided: int = 0
    groups: int = 0
    interval: str = "bootstrap"
    chance: float | None = None
    strict: float | None = None
    argmax: float | None = None
    blind: float | None = None

    @property
    def warning(self) -> str | None:
        """Why the figure says nothing of the model, or None."""
        counts = {"had scores that are no numbers": self.undecided, "were ties": self.ties}
        for what, number in counts.items():
            if 2 * number > self.count:
                return f"{self.name}: {number} of {self.count} {what}"
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            return f"{self.name}: the figure is no finite number"
        return None


@dataclasses.dataclass(frozen=True)
class Scores:
    """The figures of one benchmark, and how many examples were left out, by subset.

    Attributes:
      outcomes: what they were made of, by subset.
      aggregates: what is made of subsets.
      again: another encoder -> its Scores on the same questions.
        None unless texts are chosen that a model of the texts alone could tell apart.
    """

    scores: tuple[Score, ...]
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = dataclasses.field(default_factory=dict, repr=False)
    aggregates: Mapping[str, Aggregate] = dataclasses.field(default_factory=dict, repr=False)
    ties: str | Mapping[str, str] = "strict"
    again: Callable[[Any], "Scores"] | None = dataclasses.field(default=None, repr=False)

    def __getitem__(self, name: str) -> Score:
        return {score.name: score for score in self.scores}[name]

    def warnings(self) -> list[str]:
        """What must be said before any of the figures is believed, a line each."""
        return [score.warning for score in self.scores if score.warning]


def benchmark(
    scorer: Callable,
    *,
    ties: str | Mapping[str, str] = "strict",
    aggregates: Mapping[str, Aggregate] | Callable[[Mapping], Mapping] | None = None,
    listed: bool = True,
    texts: int | None = None,
) -> Callable:
    """Makes run(encoder, **options) -> Scores of a reader(**options) that yields items.

    run() takes the reader's options, and partial_images: score the examples whose images are there
    and count the others as left out.

    Args:
      scorer: of benchmarks/scorers.py.
      ties: the benchmark's own rule, strict (wrong) or argmax (the first of the best counts); by
        subset where they differ.
      aggregates: what is made of the subsets, or a function of how many examples each has; one
        that needs a subset without examples is left out.
      listed: whether the subsets themselves are among the scores.
      texts: how many each item must have.
    """

    def decorate(read: Callable[..., Iterable[Item]]) -> Callable:
        name = read.__module__.rpartition(".")[2]

        @functools.wraps(read)
        @passed_on_to(read)
        def run(encoder, *args, partial_images: bool = False, **options) -> Scores:
            items = list(read(*args, **options))
            check_items(name, items, texts)
            items, left_out = with_images(name, items, partial_images)
            return judge(encoder, items=items, left_out=left_out)

        def judge(encoder, *, items, left_out) -> Scores:
            outcomes = {}
            for score, questions in grouped(items, lambda item: item.scorer or scorer):
                if hasattr(encoder, "learn"):
                    encoder.learn(questions, score.pairs)
                outcomes |= score(encoder, questions)
            counts = {name: len(o.items) for name, o in outcomes.items()}
            made = aggregates(counts) if callable(aggregates) else aggregates or {}
            scores = summarise(outcomes, made, left_out, ties=ties, listed=listed)
            again = functools.partial(judge, items=items, left_out=left_out)
            # Where all questions of a subset have the same texts, these alone tell nothing.
            differ = any(len({id(i.texts) for i in o.items}) > 1 for o in outcomes.values())
            may_tell = scorer.chooses_texts and differ
            return dataclasses.replace(scores, again=again if may_tell else None)

        run.read, run.scorer = read, scorer
        return run

    return decorate


def over(*metrics: str, mean: type[Mean] = Mean) -> Callable[[Mapping], dict[str, Mean]]:
    """Aggregates: each metric's mean over the subsets that have it, <subset>_<metric>."""
    return lambda counts: {
        metric: mean(name for name in counts if name.endswith(f"_{metric}")) for metric in metrics
    }


def summarise(
    outcomes: Mapping[str, Outcomes],
    aggregates: Mapping[str, Aggregate],
    left_out: Mapping[str, int] | None = None,
    *,
    ties: str | Mapping[str, str] = "strict",
    listed: bool = True,
) -> Scores:
    """The score of every subset, then every aggregate of their means, with intervals."""
    counts = {name: len(o.items) for name, o in outcomes.items()}
    aggregates = intervals.complete(aggregates, counts)
    samples = samples_of(outcomes, ties)
    estimates = intervals.estimates(samples, aggregates)
    means = {
        reading: {name: float(np.mean(o.reading(reading))) for name, o in outcomes.items()}
        for reading in ("strict", "argmax")
    }
    means["chance"] = {name: float(np.mean(o.chance)) for name, o in outcomes.items()}
    has_argmax = all(o.argmax is not None for o in outcomes.values())
    scores = []
    subsets = {name: {name: 1.0} for name in outcomes} if listed else {}
    for name, aggregate in {**subsets, **aggregates}.items():
        names, function, _ = intervals.resolve(aggregate, counts)
        interval, parts = estimates[name], [outcomes[n] for n in names]

        def reading(kind, names=names, function=function):
            return 100 * float(function(*(means[kind][n] for n in names)))

        scores.append(
            Score(
                name=name,
                value=100 * interval.value,
                count=sum(counts[n] for n in names),
                ties=sum(int(o.tied.sum()) for o in parts),
                low=100 * interval.low,
                high=100 * interval.high,
                undecided=sum(int(o.undecided.sum()) for o in parts),
                groups=len(np.unique(np.concatenate([samples[n].groups for n in names]))),
                interval=interval.method,
                chance=reading("chance"),
                strict=reading("strict"),
                argmax=reading("argmax") if has_argmax else None,
            )
        )
    return Scores(tuple(scores), left_out or {}, outcomes, aggregates, ties)


def rule(ties: str | Mapping[str, str], subset: str) -> str:
    """The tie rule of a subset, strict or argmax."""
    return ties if isinstance(ties, str) else ties.get(subset, "strict")


def samples_of(outcomes: Mapping[str, Outcomes], ties) -> dict[str, Sample]:
    """What is resampled: the verdicts of every subset under its tie rule, and their groups."""
    groups = intervals.numbered([[item.cluster for item in o.items] for o in outcomes.values()])
    return {
        name: Sample(o.reading(rule(ties, name)).astype(np.float64), own)
        for (name, o), own in zip(outcomes.items(), groups, strict=True)
    }


def available() -> list[str]:
    """Names of the benchmarks there are: the files of this folder that define run()."""
    return modules_that_define("run", Path(__file__).parent)


def find(name: str) -> tuple[Callable[..., Scores], Options]:
    """run() of benchmarks/<name>.py, and the options that it takes.

    Raises:
      UserError: no such benchmark; says which there are and the nearest.
    """
    where = dict(handed=1, section=f"--eval.{name}")
    return definition("run", "benchmarks", name, "benchmark", **where)


def load(name: str, options: Mapping) -> Callable[..., Scores]:
    """The benchmark of that name, its options bound: load(name, options)(encoder) -> Scores.

    Options that are None or empty count as not given.

    Raises:
      UserError: no such benchmark, no such option, or one that is needed is not given.
    """
    run, takes = find(name)
    set_options = {key: value for key, value in options.items() if value not in (None, "")}
    return functools.partial(run, **takes.arguments(set_options))
