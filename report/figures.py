"""The report's pictures, as SVG: bars with intervals, the plane of two aims, curves of a run."""

import io
import re
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.base import Scores

COLOURS = ("#1b6ca8", "#d9730d", "#3f8f4f", "#8d4fa8", "#7a6652")
_STYLE = {
    "svg.fonttype": "none",  # letters as letters: smaller, and read aloud
    "svg.hashsalt": "report",  # the same page for the same results
    "font.family": "sans-serif",
    "font.size": 9,
}


def bars(models: Mapping[str, Scores]) -> str:
    """A bar for each figure and model, with its interval, chance dotted and blind dashed."""
    first = next(iter(models.values()))
    names = [score.name for score in first.scores]
    height = 0.8 / len(models)
    drawing = Figure(figsize=(7, 0.9 + len(names) * max(0.24, 0.13 * len(models))))
    axes = drawing.add_subplot(xlim=(0, 100), xlabel="%")
    for k, (model, scores) in enumerate(models.items()):
        ys = [i + (k - (len(models) - 1) / 2) * height for i in range(len(names))]
        values = [scores[name].value for name in names]
        errors = [
            [max(0.0, scores[name].value - scores[name].low) for name in names],
            [max(0.0, scores[name].high - scores[name].value) for name in names],
        ]
        axes.barh(ys, values, height, xerr=errors, color=COLOURS[k % len(COLOURS)],
                  error_kw={"elinewidth": 0.9, "capsize": 1.5}, label=model)  # fmt: skip
    for line, of in ((":", "chance"), ("--", "blind")):
        for i, name in enumerate(names):
            if (value := getattr(first[name], of)) is not None:
                axes.vlines(value, i - 0.46, i + 0.46, "black", linestyles=line, lw=0.9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if len(models) > 1:
        drawing.legend(loc="outside upper left", ncols=2, frameon=False)
    return svg(drawing)


def plane(points: Mapping[str, tuple[float, float]], joined: bool) -> str:
    """Composition over retention, with the Pareto front.

    Args:
      points: model -> (retention, composition), percent.
      joined: whether they lie on a line, in this order.
    """
    drawing = Figure(figsize=(5.5, 4.5))
    axes = drawing.add_subplot(xlabel="retention, %", ylabel="composition, %")
    xs, ys = zip(*points.values(), strict=True)
    front = pareto(list(points.values()))
    axes.step(*zip(*front, strict=True), where="pre", color="#999", lw=1, label="Pareto front")
    if joined:
        axes.plot(xs, ys, color=COLOURS[0], lw=1, alpha=0.5)
    axes.scatter(xs, ys, 24, color=COLOURS[0], zorder=3)
    for name, (x, y) in points.items():
        axes.annotate(name, (x, y), (4, 4), textcoords="offset points")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return svg(drawing)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other point equals or exceeds in both, by the first coordinate."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]


def curves(lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Scores over training steps; name -> (step, percent)."""
    drawing = Figure(figsize=(7, 3))
    axes = drawing.add_subplot(xlabel="step", ylabel="%")
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        axes.plot(*zip(*line, strict=True), marker="o", ms=3, color=colour, label=name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return svg(drawing)


def svg(drawing: Figure) -> str:
    """A drawing as an element of a page."""
    text = io.StringIO()
    drawing.set_layout_engine("constrained")
    with rc_context(_STYLE):
        drawing.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    content = text.getvalue()
    content = content[content.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.S)
