"""How well a scorer agrees with human ratings, and with how much certainty.

`python -m teaching.agreement ratings.csv scores.csv`

ratings.csv: item, rating[, rating_2, ..][, key][, group]; scores.csv: item, score[, key].
A key is an item of a rubric and is reported on its own; several ratings of an item, in columns or
rows, are several raters; items of one group (an image, a lesson) are drawn together for intervals.
"""

import argparse
import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from errors import UserError, one_line_errors
from files import read_table
from paths import disk_argument

RESAMPLES = 1000
COLLAPSED = 0.7  # above this share of one value, a correlation rests on the few other ratings
FEWEST_FOR_CEILING = 20  # items with two raters; agreement on fewer says nothing


def _correlation(function: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    """Undefined, nan, where one side does not vary: no rank is above another."""

    def statistic(x, y):
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return math.nan
        return float(function(x, y))

    return statistic


def quadratic_kappa(x: np.ndarray, y: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights, 1 - observed / expected squared difference.

    It needs no list of categories: the expectation over independent raters is
    var(x) + var(y) + (mean(x) - mean(y))^2. nan where all ratings are one value.
    """
    expected = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(1 - np.mean((x - y) ** 2) / expected) if expected else math.nan


# Of an item's mean rating and its score.
OF_MEANS: dict[str, Callable] = {
    "spearman": _correlation(lambda x, y: stats.spearmanr(x, y).statistic),
    "kendall_tau_b": _correlation(lambda x, y: stats.kendalltau(x, y).statistic),
    "pearson": _correlation(lambda x, y: np.corrcoef(x, y)[0, 1]),
}
# Of each single rating and its item's score, as raters are compared with each other.
OF_RATINGS: dict[str, Callable] = {
    # Flickr8k-Expert as CLIPScore reports it (arXiv 2104.08718, table 1).
    "kendall_tau_c": _correlation(lambda x, y: stats.kendalltau(x, y, variant="c").statistic),
    "quadratic_kappa": quadratic_kappa,
    "exact": lambda x, y: float(np.mean(x == y)),
    "within_one": lambda x, y: float(np.mean(np.abs(x - y) <= 1)),
}
# Meaningless for a scorer that does not answer in points of the scale.
ON_THE_SCALE = ("quadratic_kappa", "exact", "within_one")


class Estimate(NamedTuple):
    """A statistic and its 95 % bootstrap interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Rated:
    """An item's human ratings; items of a group are not independent of each other."""

    ratings: tuple[float, ...]
    group: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A scorer against human ratings of one rubric key.

    Attributes:
      items: how many were both rated and scored.
      statistics: name -> Estimate, those of OF_MEANS and OF_RATINGS that apply.
      ceiling: the same between human raters, or None where too few items have two.
      rated_twice: items with at least two raters.
      commonest: "human" and "scorer" -> (value, share) of their commonest value.
    """

    items: int
    statistics: Mapping[str, Estimate]
    ceiling: Mapping[str, Estimate] | None
    rated_twice: int
    commonest: Mapping[str, tuple[float, float]]

    @property
    def collapsed(self) -> list[str]:
        """Whose ratings are mostly one value."""
        return [who for who, (_, share) in self.commonest.items() if share > COLLAPSED]

    def to_json(self) -> dict:
        """Plain dicts, statistics as {value, low, high}."""
        rows = {**dataclasses.asdict(self), "collapsed": self.collapsed}
        for name in ("statistics", "ceiling"):
            rows[name] = rows[name] and {k: e._asdict() for k, e in rows[name].items()}
        return rows

    def table(self, title: str) -> str:
        """The statistics as text for a terminal, one line each."""
        lines = [f"{title} ({self.items} items)      value   95 % interval       human ceiling"]
        for name, estimate in self.statistics.items():
            ceiling = _interval(self.ceiling[name]) if self.ceiling else "none"
            lines.append(f"  {name:<16} {_interval(estimate)}   {ceiling}")
        if not self.ceiling:
            lines.append(f"  human ceiling: none ({self.rated_twice} items have two raters)")
        for who in self.collapsed:
            value, share = self.commonest[who]
            lines.append(f"  warning: {share:.0%} of the {who} ratings are {value:g}: collapsed")
        return "\n".join(lines)


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"{'undefined':>28}"
    if estimate.low is None:
        return f"{estimate.value:8.3f}   {'no interval':>17}"
    return f"{estimate.value:8.3f}   {estimate.low:7.3f} - {estimate.high:6.3f} "


def agreement(
    rated: Sequence[Rated],
    scores: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compares a scorer with human ratings, and human raters with each other.

    Args:
      rated: items, n > 0, each with at least one rating.
      scores: of the same items.
      resamples: of the bootstrap over groups.

    Returns:
      Statistics of a scorer whose values are not all whole numbers leave out ON_THE_SCALE. The
      ceiling takes each rater against the mean of the item's others, or against each other one.
    """
    groups = [item.group for item in rated]
    twice = [item for item in rated if len(item.ratings) > 1]
    ratings = np.array([rating for item in rated for rating in item.ratings])
    scores = np.asarray(scores, float)
    pairs = [
        (np.mean(item.ratings), score, group)
        for item, score, group in zip(rated, scores, groups, strict=True)
    ]
    single = [
        (rating, score, group)
        for item, score, group in zip(rated, scores, groups, strict=True)
        for rating in item.ratings
    ]
    skipped = () if (scores == np.round(scores)).all() else ON_THE_SCALE
    of_ratings = {name: f for name, f in OF_RATINGS.items() if name not in skipped}
    ceiling = None
    if len(twice) >= FEWEST_FOR_CEILING:
        ceiling = _estimates(OF_MEANS, list(_against_the_others(twice)), resamples, seed)
        ceiling |= _estimates(of_ratings, list(_against_each_other(twice)), resamples, seed)
    return Agreement(
        items=len(rated),
        statistics=_estimates(OF_MEANS, pairs, resamples, seed)
        | _estimates(of_ratings, single, resamples, seed),
        ceiling=ceiling,
        rated_twice=len(twice),
        commonest={"human": _commonest(ratings), "scorer": _commonest(scores)},
    )


def difference(
    statistic: str,
    rated: Sequence[Rated],
    before: Sequence[float],
    after: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """How much better `after` agrees than `before`, on the same items and the same resamples."""
    function = {**OF_MEANS, **OF_RATINGS}[statistic]
    rows = [
        (rating, old, new, item.group)
        for item, old, new in zip(rated, before, after, strict=True)
        for rating in ([np.mean(item.ratings)] if statistic in OF_MEANS else item.ratings)
    ]
    x, old, new = np.array([row[:3] for row in rows], float).T
    return _bootstrap(
        lambda at: function(x[at], new[at]) - function(x[at], old[at]),
        [row[3] for row in rows],
        resamples,
        seed,
    )


def _against_the_others(rated: Sequence[Rated]) -> Iterator[tuple]:
    for item in rated:
        total = sum(item.ratings)
        for rating in item.ratings:
            yield (total - rating) / (len(item.ratings) - 1), rating, item.group


def _against_each_other(rated: Sequence[Rated]) -> Iterator[tuple]:
    for item in rated:
        for i, a in enumerate(item.ratings):
            for b in item.ratings[:i] + item.ratings[i + 1 :]:
                yield a, b, item.group


def _estimates(functions: Mapping, pairs: Sequence[tuple], resamples: int, seed: int) -> dict:
    x, y = np.array([pair[:2] for pair in pairs], float).T
    groups = [pair[2] for pair in pairs]
    return {
        name: _bootstrap(lambda at, f=f: f(x[at], y[at]), groups, resamples, seed)
        for name, f in functions.items()
    }


def _bootstrap(
    statistic: Callable[[np.ndarray], float], groups: Sequence, resamples: int, seed: int
) -> Estimate:
    """A statistic of rows, and percentiles of it when whole groups of rows are redrawn."""
    value = statistic(np.arange(len(groups)))
    if math.isnan(value):
        return Estimate(None, None, None)
    ids = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(
                np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            )
            for _ in range(resamples)
        ]
    )
    values = values[np.isfinite(values)]
    if len(values) < 0.9 * resamples or not resamples:
        return Estimate(value, None, None)  # an interval of the resamples that vary would be a lie
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _commonest(values: np.ndarray) -> tuple[float, float]:
    value, count = Counter(values.tolist()).most_common(1)[0]
    return value, count / len(values)


def read_ratings(path: Path) -> dict[str, dict[str, Rated]]:
    """key -> item -> Rated, of a csv file as the module describes it; "" where there is no key.

    Raises:
      UserError: a column is missing, a rating is no number, an item has two groups.
    """
    ratings: dict = defaultdict(lambda: defaultdict(list))
    groups: dict[str, str] = {}
    for where, row in read_table(path, ("item", "rating")):
        item = row["item"]
        group = row.get("group") or item
        if groups.setdefault(item, group) != group:
            raise UserError(f"{where}: item {item} is of group {groups[item]} before")
        cells = {name: cell for name, cell in row.items() if name.startswith("rating")}
        for name, cell in cells.items():
            if cell.strip():
                ratings[row.get("key", "")][item].append(_number(where, name, cell))
    return {
        key: {item: Rated(tuple(values), groups[item]) for item, values in items.items()}
        for key, items in ratings.items()
    }


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """key -> item -> score.

    Raises:
      UserError: a column is missing, a score is no number, an item is scored twice.
    """
    scores: dict = defaultdict(dict)
    for where, row in read_table(path, ("item", "score")):
        of_key = scores[row.get("key", "")]
        if row["item"] in of_key:
            raise UserError(f"{where}: item {row['item']} is scored a second time")
        of_key[row["item"]] = _number(where, "score", row["score"])
    return dict(scores)


def _number(where: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {cell!r}, not a number")
    return value


def compare(ratings: Mapping, scores: Mapping, **options) -> tuple[dict[str, Agreement], int]:
    """Agreement for each key, and how many rated items have no score.

    Raises:
      UserError: nothing is both rated and scored.
    """
    agreements, missing = {}, 0
    for key, items in ratings.items():
        scored = [item for item in items if item in scores.get(key, {})]
        missing += len(items) - len(scored)
        if scored:
            values = [scores[key][item] for item in scored]
            agreements[key] = agreement([items[item] for item in scored], values, **options)
    if not agreements:
        raise UserError("no item is both rated and scored: item and key must be the same in both")
    return agreements, missing


@one_line_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ratings", type=disk_argument)
    parser.add_argument("scores", type=disk_argument)
    parser.add_argument("--output", type=disk_argument, help="json to write beside the table")
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    agreements, missing = compare(
        read_ratings(options.ratings),
        read_scores(options.scores),
        resamples=options.resamples,
        seed=options.seed,
    )
    for key, agreed in agreements.items():
        print(agreed.table(key or "agreement"))
    if missing:
        print(f"left out: {missing} rated items without a score")
    if options.output:
        report = {"missing": missing, "keys": {key: a.to_json() for key, a in agreements.items()}}
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
