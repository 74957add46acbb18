"""What a run changed: a table on the terminal, a figure and a sheet of scenes beside its log.

    python report.py --workdir=RUN

RUN is a run with config.eval.before_and_after, at whose end train.py does the same.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from benchmarks import world
from data.tokenizer import load_tokenizer
from data.world import TYPES, World
from errors import UserError
from eval import find_model, make_encoder, restore
from training import cli
from training import mesh as meshes
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
_COLUMNS = 5  # scenes in a row of the sheet
_SHEET_SIZE = 192  # pixels of a scene on the sheet, which the model saw smaller


def write(workdir: Path) -> None:
    """Prints the table and writes report.png and, of a run on the world, scenes.png.

    Raises:
      UserError: the run has no scores before its first step and after its last.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    before, after = read_scores(workdir)
    print(f"\n{table(before, after)}")
    figure(before, after).savefig(workdir / "report.png", dpi=110)
    written = ["report.png"]
    if "world" in config["eval"]["benchmarks"] and config["init"]["from"]:
        scenes(workdir, config).savefig(workdir / "scenes.png", dpi=110)
        written.append("scenes.png")
    print(f"\nIn {workdir}: {', '.join(written)}")
    print(NEXT.format(workdir=workdir, source=config["init"]["from"]))


def read_scores(workdir: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Percent by name, such as world/composition, before the first step and at the last one.

    Raises:
      UserError: the run did not score both.
    """
    rows = read_metrics(Path(workdir) / METRICS_FILE)
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


def scenes(workdir: Path, config: Mapping) -> Figure:
    """Scenes of unseen classes whose negative the run learnt to tell, and that it still does not.

    Args:
      config: of the run, as a nested dict.
    """
    options = config["eval"]["world"]
    shown = World(options["scenes"], "test", "unseen", options["size"], seed=options["seed"])
    examples = [shown.example(i) for i in range(len(shown))]
    mesh = meshes.make_mesh()
    was, now = (
        _judge(make_encoder(*_model(name, mesh), config["eval"]["batch_size"]), examples)
        for name in (config["init"]["from"], workdir)
    )
    rows = {
        "now right": choose([key for key in now if now[key] and not was[key]]),
        "still wrong": choose([key for key in now if not now[key]]),
    }
    drawing = Figure(figsize=(2.6 * _COLUMNS, 8), layout="constrained")
    grid = drawing.subplots(len(rows), _COLUMNS)
    large = World(len(shown), "test", "unseen", _SHEET_SIZE, seed=options["seed"])
    for axes in grid.flat:
        axes.set_axis_off()
    for cells, (title, keys) in zip(grid, rows.items(), strict=True):
        for cell, (i, kind) in zip(cells, keys, strict=False):
            cell.imshow(large.example(i).image)
            cell.set_title(f"{title}: {kind}", fontsize=9)
            texts = (f"true: {examples[i].caption}", f"false: {examples[i].negatives[kind]}")
            text = "\n".join(textwrap.fill(line, 34) for line in texts)
            cell.text(0, -0.04, text, transform=cell.transAxes, fontsize=8, va="top")
    drawing.supxlabel("Glyphs: OpenMoji, CC BY-SA 4.0", fontsize=8)
    return drawing


def _model(name, mesh):
    weights, _ = find_model(str(name), None)
    tokenizer = load_tokenizer(weights.tokenizer)
    return *restore(weights, mesh, tokenizer), mesh, tokenizer


def _judge(encoder, examples) -> dict[tuple[int, str], bool]:
    """(example, type of negative) -> whether the caption is nearer to the scene."""
    judged = {}
    for kind, margins in world.composition(encoder, examples).items():
        at = (i for i, example in enumerate(examples) if kind in example.negatives)
        judged |= {(i, kind): bool(margin > 0) for i, margin in zip(at, margins, strict=True)}
    return judged


def choose(keys: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Some of them: of as many types as possible, no scene twice."""
    chosen: dict[int, str] = {}
    # A reshuffled caption is the least interesting: last.
    for kind in (*TYPES[1:], TYPES[0]):
        new = next((key for key in keys if key[1] == kind and key[0] not in chosen), None)
        if new:
            chosen[new[0]] = kind
    chosen |= {i: kind for i, kind in keys if i not in chosen}
    return list(chosen.items())[:_COLUMNS]


def main() -> None:
    write(Path(flags.FLAGS.workdir))


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "A run directory.", required=True)


if __name__ == "__main__":
    cli.run(main, define_flags)
