"""What an experiment measured: kept cell by cell, then means, paired differences, table, figure."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from errors import UserError
from files import read_json, write_json
from options import Options, definition


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement of a series (a method, a control) at x (a budget, a turn, a rate)."""

    series: str
    x: float
    metric: str
    value: float


@dataclasses.dataclass(frozen=True)
class Cells:
    """Parts of an experiment that are computed once: a restart reads what is there.

    Attributes:
      folder: of one seed.
      say: told of each part that was computed.
    """

    folder: Path
    say: Callable[[str], None] = lambda line: None

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What compute() returns, plain json, kept as <name>.json."""
        path = Path(self.folder, f"{name}.json")
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, compute(), indent=1)
            self.say(name)
        return read_json(path)


def find(paper: str) -> tuple[Callable[..., list[Point]], Options]:
    """experiment() of teaching/<paper>.py, and the options that it takes.

    Raises:
      UserError: no such experiment; says which there are and the nearest.
    """
    where = dict(handed=1, section="config.teach.options")
    return definition("experiment", "teaching", paper, "teaching experiment", **where)


def data_of(lend, task: str) -> Path:
    """The folder of a task's files; raises a UserError where none is given."""
    if lend.data is None:
        raise UserError(f"{task} needs its files: give their folder, --config.teach.data=DIR")
    return lend.data


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t over seeds; the interval of one value is unbounded."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def summarise(by_seed: dict[int, Sequence[Point]], baseline: str | None = None) -> list[dict]:
    """A row for each (metric, series, x): mean over seeds, and difference to the baseline's.

    Differences are paired by seed. Seeds that lack a point are left out of its row, and counted
    by `seeds`.
    """
    values: dict = defaultdict(dict)
    for seed, points in by_seed.items():
        for point in points:
            values[point.metric, point.series, point.x][seed] = point.value
    rows = []
    for (metric, series, x), by_seed in values.items():
        mean, low, high = interval(list(by_seed.values()))
        row = {"metric": metric, "series": series, "x": x, "seeds": len(by_seed)}
        row |= {"mean": mean, "low": low, "high": high, "values": list(by_seed.values())}
        other = values.get((metric, baseline, x), {}) if series != baseline else {}
        both = [seed for seed in by_seed if seed in other]
        if both:
            names = ("difference", "difference_low", "difference_high")
            paired = interval([by_seed[seed] - other[seed] for seed in both])
            row |= dict(zip(names, paired, strict=True))
        rows.append(row)
    return rows


def plain(rows: Sequence[dict]) -> list[dict]:
    """The rows as json has them: no ends, None, where an interval is unbounded."""
    return [
        {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in row.items()}
        for row in rows
    ]


def table(rows: Sequence[dict], baseline: str | None = None) -> str:
    """The rows as text, a line each."""
    width = max(len(row["series"]) for row in rows)
    lines = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        head = f"{metric:<{width}}        x     mean   95 % interval"
        lines.append(head + (f"   minus {baseline}" if baseline else ""))
        for row in rows:
            if row["metric"] == metric:
                line = f"{row['series']:<{width}} {row['x']:8g} {row['mean']:8.3f}"
                line += f"  {row['low']:7.3f} - {row['high']:6.3f}"
                if "difference" in row:
                    ends = row["difference_low"], row["difference_high"]
                    line += "   {:+.3f} ({:+.3f} to {:+.3f})".format(row["difference"], *ends)
                lines.append(line)
    return "\n".join(lines)


def figure(rows: Sequence[dict], x_label: str) -> Figure:
    """Each metric over x, a line a series, with intervals."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    drawing = Figure(figsize=(4.6 * len(metrics), 3.6), layout="constrained")
    for axes, metric in zip(
        drawing.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for series in dict.fromkeys(row["series"] for row in rows):
            line = [row for row in rows if (row["metric"], row["series"]) == (metric, series)]
            line.sort(key=lambda row: row["x"])
            if line:
                x, mean, low, high = (
                    np.array([row[name] for row in line]) for name in ("x", "mean", "low", "high")
                )
                finite = np.isfinite(high)
                errors = np.where(finite, [mean - low, high - mean], 0)
                axes.errorbar(x, mean, errors, label=series, marker="o", ms=3, capsize=2)
        axes.set(title=metric, xlabel=x_label)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return drawing
