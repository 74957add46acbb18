"""What a run changed: a table on the terminal, a figure and a page beside its log.

    python -m report.run --workdir=RUN

RUN is a run with config.eval.before_and_after, at whose end train.py does the same.
"""

from collections.abc import Mapping
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from errors import UserError
from eval import score
from paths import as_path, whole
from training import cli
from training.checkpoints import read_config
from training.logging import METRICS_FILE, read_metrics

NEXT = """
Next:
  pip install tensorboard && tensorboard --logdir {workdir}
                                                        the run's curves
  python eval.py --workdir={workdir} --wise_ft={source} --output={workdir}/wise_ft.json
                                                        between the weights before and after
  python train.py --config=tpu_configs/flickr8k_tiny.py --config.data.root=DIR --workdir=RUN
                                                        your own photographs and captions"""


def write(workdir: Path) -> None:
    """Prints the table, writes report.png, and scores both ends of the run for report.html.

    Raises:
      UserError: the run has no scores before its first step and after its last.
    """
    workdir = as_path(workdir)
    start = read_config(workdir)["init"]["from"]
    before, after = read_scores(workdir)
    print(f"\n{table(before, after)}")
    with whole(workdir / "report.png") as path:
        figure(before, after).savefig(path, dpi=110, format="png")
    print(f"\nExample by example, {'before and after' if start else 'after'}:")
    score(str(workdir), {}, workdir / "results.json", against=start or None)
    print(NEXT.format(workdir=workdir, source=start))


def read_scores(workdir: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Percent by name, such as world/composition, before the first step and at the last one.

    Raises:
      UserError: the run did not score both.
    """
    rows = read_metrics(as_path(workdir) / METRICS_FILE)
    scored = [
        (row["step"], {name: value for name, value in row.items() if "/" in name}) for row in rows
    ]
    scored = [(step, scores) for step, scores in scored if scores]
    if not scored or scored[0][0] != 0 or len(scored) < 2:
        raise UserError(
            f"{workdir} has no scores of step 0 and of a later one: train with "
            "--config.eval.before_and_after and some config.eval.benchmarks"
        )
    return scored[0][1], scored[-1][1]


def table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Before, after and difference as text, a score a line."""
    width = max(map(len, after))
    lines = [f"{'%':<{width}}  before   after  difference"]
    for name, value in after.items():
        start = before[name]
        lines.append(f"{name:<{width}}  {start:6.1f}  {value:6.1f}  {value - start:+10.1f}")
    return "\n".join(lines)


def figure(before: Mapping[str, float], after: Mapping[str, float]) -> Figure:
    """An arrow from before to after for each score."""
    names = list(after)[::-1]
    drawing = Figure(figsize=(7, 1 + 0.25 * len(names)), layout="constrained")
    axes = drawing.add_subplot(xlim=(0, 100), xlabel="%")
    for y, name in enumerate(names):
        colour = "tab:green" if after[name] >= before[name] else "tab:red"
        arrow = dict(arrowstyle="-|>", color=colour, shrinkA=0, shrinkB=0)
        axes.annotate("", (after[name], y), (before[name], y), arrowprops=arrow)
    ys = range(len(names))
    axes.scatter([before[n] for n in names], ys, 18, "gray", label="before", zorder=3)
    axes.scatter([after[n] for n in names], ys, 18, "black", label="after", zorder=3)
    axes.set_yticks(ys, names)
    axes.axvline(50, color="lightgray", zorder=0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left")
    return drawing


def main() -> None:
    write(as_path(flags.FLAGS.workdir))


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "A run directory.", required=True)


if __name__ == "__main__":
    cli.run(main, define_flags)
