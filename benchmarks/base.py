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
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import intervals
from benchmarks.items import Item, Outcomes, check_items, grouped, lessons, with_images
from errors import UserError
from intervals import Aggregate, Mean, Sample
from options import Options, check_known, modules_that_define


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
    """The figures of one benchmark, and how many examples were left out, by subset.

    Attributes:
      outcomes: what they were made of, by subset.
      aggregates: what is made of subsets.
      again: another encoder -> its Scores on the same questions.
      compositional: whether texts are chosen that a model of texts alone could tell apart.
    """

    scores: tuple[Score, ...]
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = dataclasses.field(default_factory=dict, repr=False)
    aggregates: Mapping[str, Aggregate] = dataclasses.field(default_factory=dict, repr=False)
    ties: str | Mapping[str, str] = "strict"
    again: Callable[[Any], "Scores"] | None = dataclasses.field(default=None, repr=False)
    compositional: bool = False

    def __getitem__(self, name: str) -> Score:
        return {score.name: score for score in self.scores}[name]

    def rule(self, subset: str) -> str:
        """The tie rule of a subset, strict or argmax."""
        return _rule(self.ties, subset)

    def beside(self, blind: "Scores") -> "Scores":
        """These with the ceiling of a model of the texts alone, where that decides at all."""
        ceiling = {s.name: s.value for s in blind.scores if s.warning is None}
        scores = (dataclasses.replace(s, blind=ceiling.get(s.name)) for s in self.scores)
        return dataclasses.replace(self, scores=tuple(scores))

    def minus(self, other: "Scores") -> dict[str, intervals.Difference]:
        """The paired differences to another model's scores of the same examples, in percent."""
        keys = [
            {name: [i.key for i in o.items] for name, o in scores.outcomes.items()}
            for scores in (self, other)
        ]
        if keys[0] != keys[1]:
            raise UserError("the two were not scored on the same examples: compare them in one run")
        ours, theirs = (_samples(scores.outcomes, self.ties) for scores in (self, other))
        found = intervals.differences(ours, theirs, self.aggregates)
        return {
            score.name: intervals.Difference(*(100 * v for v in d[:4]), d.discordant)
            for score in self.scores
            for d in [found[score.name]]
        }

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
            "ties": self.ties if isinstance(self.ties, str) else dict(self.ties),
        }

    def warnings(self) -> list[str]:
        """What must be said before any of the figures is believed, a line each."""
        return [score.warning for score in self.scores if score.warning]

    def table(self, title: str) -> str:
        """The figures as text for a terminal, one line each."""
        lines = []
        if warnings := self.warnings():
            lines.append(
                f"WARNING: {len(warnings)} of {len(self.scores)} figures say nothing of this model "
                f"({warnings[0]}): is the tokenizer the model's, and did its training converge?"
            )
        both = any(s.ties and s.argmax is not None for s in self.scores)
        blind = any(s.blind is not None for s in self.scores)
        width = max(len(name) for name in [title, *(score.name for score in self.scores)])
        head = f"{title:<{width}}       %   95 % interval    count   ties  chance"
        lines.append(head + "  strict  argmax" * both + "   blind" * blind)
        for s in self.scores:
            line = f"{s.name:<{width}}  {s.value:6.2f}  {s.low:6.2f} - {s.high:6.2f}"
            line += "w" if s.interval == "wilson" else " "
            line += f" {s.count:7d}  {s.ties:5d}  {_number(s.chance)}"
            line += f"  {_number(s.strict)}  {_number(s.argmax)}" if both else ""
            lines.append((line + (f"  {_number(s.blind)}" if blind else "")).rstrip())
        if any(s.interval == "wilson" for s in self.scores):
            lines.append("w: a Wilson interval, for too few images to resample")
        if any(self.left_out.values()):
            parts = ", ".join(f"{name} {n}" for name, n in self.left_out.items() if n)
            lines.append(f"left out: {sum(self.left_out.values())} examples ({parts})")
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return " " * 6 if value is None else f"{value:6.2f}"


def _json_number(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        def run(encoder, *args, partial_images: bool = False, **options) -> Scores:
            items = list(read(*args, **options))
            check_items(name, items, texts)
            items, left_out = with_images(name, items, partial_images)
            return judge(encoder, items=items, left_out=left_out)

        def judge(encoder, *, items, left_out) -> Scores:
            outcomes = {}
            for own, asked in grouped(items, lambda item: item.scorer or scorer):
                if hasattr(encoder, "learn"):
                    encoder.learn(*lessons(asked, own.pairs))
                outcomes |= own(encoder, asked)
            made = aggregates or {}
            if callable(made):
                made = made({name: len(o.items) for name, o in outcomes.items()})
            again = functools.partial(judge, items=items, left_out=left_out)
            scores = summarise(outcomes, made, left_out, ties=ties, listed=listed)
            compositional = getattr(scorer, "blind", False)
            return dataclasses.replace(scores, again=again, compositional=compositional)

        parameters = inspect.signature(read).parameters.values()
        kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        first = inspect.Parameter("encoder", kinds[0])
        last = inspect.Parameter("partial_images", kinds[1], default=False, annotation=bool)
        run.__signature__ = inspect.Signature([first, *parameters, last])
        run.read, run.scorer = read, scorer
        return run

    return decorate


def over(*metrics: str) -> Callable[[Mapping], dict[str, Mean]]:
    """Aggregates: each metric's mean over the subsets that have it, <subset>_<metric>."""

    def aggregates(counts: Mapping) -> dict[str, Mean]:
        return {m: Mean(name for name in counts if name.endswith(f"_{m}")) for m in metrics}

    return aggregates


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
    aggregates = {name: made for name, made in aggregates.items() if _complete(made, counts)}
    samples = _samples(outcomes, ties)
    found = intervals.estimates(samples, aggregates)
    means = {
        reading: {name: float(np.mean(o.reading(reading))) for name, o in outcomes.items()}
        for reading in ("strict", "argmax")
    }
    means["chance"] = {name: o.chance for name, o in outcomes.items()}
    has_argmax = all(o.argmax is not None for o in outcomes.values())
    scores = []
    subsets = {name: {name: 1.0} for name in outcomes} if listed else {}
    for name, aggregate in {**subsets, **aggregates}.items():
        names, function, _ = intervals.resolve(aggregate, counts)
        interval, parts = found[name], [outcomes[n] for n in names]

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


def _complete(aggregate: Aggregate, counts: Mapping[str, int]) -> bool:
    try:
        intervals.resolve(aggregate, counts)
    except KeyError:
        return False
    return True


def _rule(ties: str | Mapping[str, str], subset: str) -> str:
    return ties if isinstance(ties, str) else ties.get(subset, "strict")


def _samples(outcomes: Mapping[str, Outcomes], ties: str | Mapping[str, str]) -> dict[str, Sample]:
    rules = [_rule(ties, name) for name in outcomes]
    groups = intervals.numbered([[item.cluster for item in o.items] for o in outcomes.values()])
    values = (
        o.reading(rule).astype(np.float64) for rule, o in zip(rules, outcomes.values(), strict=True)
    )
    return dict(zip(outcomes, map(Sample, values, groups), strict=True))


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
