"""Intervals and paired differences of figures whose examples share images.

Examples of one photograph are not independent, so groups of them are resampled, not examples; one
draw of groups serves every subset, so that an aggregate's interval knows what its subsets share.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

RESAMPLES = 1000
FEW_GROUPS = 30  # below, a bootstrap's interval is too narrow
_FEW_IN_AGGREGATE, _MUCH_WEIGHT = 10, 0.1
_Z = 1.959964  # two-sided 95 %
_Z_POWER = 0.841621  # 80 % power
_LEAST_DISCORDANT = 6  # 2 * 0.5 ** 6 < 0.05: with fewer no exact McNemar test can tell two models
_CHUNK = 100  # resamples at a time


class Sample(NamedTuple):
    """Values of the n examples of a subset, 0 to 1, and the group that each belongs to."""

    values: np.ndarray
    groups: np.ndarray


class Mean(tuple):
    """The unweighted mean of its parts: names of subsets, or further means."""

    def weights(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Weight of each subset; KeyError where one of them has no examples."""
        result: dict[str, float] = {}
        for part, share in zip(self, self._shares(counts), strict=True):
            inner = part.weights(counts) if isinstance(part, Mean) else {part: 1.0}
            for name, weight in inner.items():
                if name not in counts:
                    raise KeyError(name)
                result[name] = result.get(name, 0.0) + share * weight
        return result

    def _shares(self, counts):
        return [1 / len(self)] * len(self)


class Pooled(Mean):
    """The mean over the examples of subsets, by their names."""

    def _shares(self, counts):
        total = sum(counts[name] for name in self)
        return [counts[name] / total for name in self]


# What is made of subsets: a mean, weights by subset, or a function of the named subsets' means.
Aggregate = Mean | Mapping[str, float] | tuple[Sequence[str], Callable]


class Interval(NamedTuple):
    """A figure, the ends of its 95 % interval, and how that was found: bootstrap or wilson."""

    value: float
    low: float
    high: float
    method: str


class Difference(NamedTuple):
    """A paired difference with its 95 % interval; `detectable` is the least that could be shown."""

    value: float
    low: float
    high: float
    detectable: float
    discordant: int


def resolve(aggregate: Aggregate, counts: Mapping[str, int]):
    """(names of subsets, function of their means, weights or None); KeyError: a subset is empty."""
    if isinstance(aggregate, tuple) and not isinstance(aggregate, Mean):
        names, function = aggregate
        for name in names:
            counts[name]
        return list(names), function, None
    weights = aggregate.weights(counts) if isinstance(aggregate, Mean) else dict(aggregate)
    for name in weights:
        counts[name]
    factors = list(weights.values())

    def weighted(*means):
        return sum(factor * mean for factor, mean in zip(factors, means, strict=True))

    return list(weights), weighted, weights


def complete(
    aggregates: Mapping[str, Aggregate], counts: Mapping[str, int]
) -> dict[str, Aggregate]:
    """The aggregates whose subsets all have examples."""
    kept = {}
    for name, aggregate in aggregates.items():
        with contextlib.suppress(KeyError):
            resolve(aggregate, counts)
            kept[name] = aggregate
    return kept


def estimates(
    samples: Mapping[str, Sample], aggregates: Mapping[str, Aggregate]
) -> dict[str, Interval]:
    """Every subset's mean and every aggregate of them, each with an interval.

    Subsets of fewer than FEW_GROUPS groups, or without a single right or wrong example, get a
    Wilson interval over their groups. Aggregates that rest on subsets of very few groups combine
    their subsets' intervals (square-and-add: Zou and Donner 2008, Statistics in Medicine 27).
    """
    counts = {name: len(sample.values) for name, sample in samples.items()}
    means = {name: float(np.mean(sample.values)) for name, sample in samples.items()}
    sizes = {name: len(np.unique(sample.groups)) for name, sample in samples.items()}
    draws = resampled_means(samples)
    intervals_by_name = {}
    for name in samples:
        few = sizes[name] < FEW_GROUPS or means[name] in (0.0, 1.0)
        intervals_by_name[name] = (
            _wilson(means[name], sizes[name])
            if few
            else _percentiles(means[name], _numbers(draws[name]))
        )
    for name, aggregate in aggregates.items():
        subsets, function, weights = resolve(aggregate, counts)
        value = float(function(*(means[subset] for subset in subsets)))
        drawn = _numbers(function(*(draws[subset] for subset in subsets)))
        few = [s for s in subsets if sizes[s] < _FEW_IN_AGGREGATE]
        total = len(np.unique(np.concatenate([samples[s].groups for s in subsets])))
        if weights and (
            total < FEW_GROUPS
            or not len(drawn)
            or np.std(drawn) < 1e-12
            or sum(abs(weights[s]) for s in few) > _MUCH_WEIGHT * sum(map(abs, weights.values()))
        ):
            intervals_by_name[name] = _square_and_add(value, weights, intervals_by_name)
        else:
            intervals_by_name[name] = _percentiles(value, drawn)
    return intervals_by_name


def differences(
    ours: Mapping[str, Sample], theirs: Mapping[str, Sample], aggregates: Mapping[str, Aggregate]
) -> dict[str, Difference]:
    """Ours minus theirs, on the same examples in the same order, for subsets and aggregates.

    detectable: what a two-sided test at 5 % finds with a power of 80 %, by the standard error of
    this difference, and no less than six examples that one model has right and the other wrong.
    """
    counts = {name: len(sample.values) for name, sample in ours.items()}
    a, b = resampled_means(ours), resampled_means(theirs)  # the same draws: the groups are the same
    result = {}
    for name, aggregate in {**{name: {name: 1.0} for name in ours}, **aggregates}.items():
        subsets, function, weights = resolve(aggregate, counts)
        pairs = [(ours[s], theirs[s]) for s in subsets]
        value = float(
            function(*(np.mean(x.values) for x, _ in pairs))
            - function(*(np.mean(y.values) for _, y in pairs))
        )
        drawn = function(*(a[s] for s in subsets)) - function(*(b[s] for s in subsets))
        drawn = _numbers(drawn)
        groups = len(np.unique(np.concatenate([x.groups for x, _ in pairs])))
        error = float(np.std(drawn)) if len(drawn) else 0.0
        if groups < FEW_GROUPS or not len(drawn):
            # As if one more example were discordant (half of one in each cell, Agresti and Min
            # 2005): that few agree is no certainty.
            error = float(np.hypot(error, 1 / (groups + 2)))
            low, high = max(-1.0, value - _Z * error), min(1.0, value + _Z * error)
        else:
            low, high = np.percentile(drawn, [2.5, 97.5])
        floor = min(
            abs(weights[s] if weights else 1 / len(subsets)) * _LEAST_DISCORDANT / counts[s]
            for s in subsets
        )
        discordant = sum(int(np.sum(x.values != y.values)) for x, y in pairs)
        detectable = max((_Z + _Z_POWER) * error, floor)
        result[name] = Difference(value, float(low), float(high), detectable, discordant)
    return result


def resampled_means(samples: Mapping[str, Sample], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Means of every subset in RESAMPLES draws of groups, with replacement; float64 [RESAMPLES].

    A draw holds the same groups for every subset. NaN where a draw holds no example of a subset.
    """
    number = 1 + max(int(sample.groups.max()) for sample in samples.values())
    totals, sizes = (
        sparse.vstack(
            [
                sparse.coo_matrix(
                    (values, (np.zeros(len(s.groups), int), s.groups)), shape=(1, number)
                )
                for s in samples.values()
                for values in [s.values if of_values else np.ones(len(s.groups))]
            ]
        ).tocsr()
        for of_values in (True, False)
    )
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(0, RESAMPLES, _CHUNK):
        drawn = rng.integers(number, size=(_CHUNK, number)) + number * np.arange(_CHUNK)[:, None]
        times = np.bincount(drawn.ravel(), minlength=number * _CHUNK).reshape(_CHUNK, number).T
        with np.errstate(invalid="ignore"):
            means.append((totals @ times) / (sizes @ times))
    return dict(zip(samples, np.concatenate(means, axis=1), strict=True))


def numbered(groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Names of groups as numbers that all the sequences share."""
    number = {name: i for i, name in enumerate(dict.fromkeys(n for names in groups for n in names))}
    return [np.array([number[name] for name in names], np.int64) for names in groups]


def wilson(share: float, number: float) -> tuple[float, float]:
    """Ends of the 95 % score interval of a proportion (Wilson 1927)."""
    centre = share + _Z**2 / (2 * number)
    half = _Z * np.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    scale = 1 + _Z**2 / number
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _wilson(value: float, groups: int) -> Interval:
    return Interval(value, *wilson(value, groups), "wilson")


def _numbers(drawn: np.ndarray) -> np.ndarray:
    """Without the draws that hold no example of some subset."""
    return drawn[~np.isnan(drawn)]


def _percentiles(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), "bootstrap")


def _square_and_add(value: float, weights: Mapping, parts: Mapping[str, Interval]) -> Interval:
    """A weighted sum of independent parts from the parts' intervals."""
    below = [w * (p.value - (p.low if w > 0 else p.high)) for w, p in _pairs(weights, parts)]
    above = [w * ((p.high if w > 0 else p.low) - p.value) for w, p in _pairs(weights, parts)]
    low, high = value - np.linalg.norm(below), value + np.linalg.norm(above)
    return Interval(value, max(0.0, float(low)), min(1.0, float(high)), "wilson")


def _pairs(weights, parts):
    return [(weight, parts[name]) for name, weight in weights.items()]
