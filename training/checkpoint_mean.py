"""Averages a run's weights over its checkpoints, as FROSTER does over epochs (section 4.1).

    python -m training.checkpoint_mean --workdir=RUN --first_epoch=2 \
        --last_epoch=22 --output=AVERAGED
    python -m training.checkpoint_mean --workdir=RUN --first_step=1200 --last_step=2400 \
        --output=AVERAGED

AVERAGED is a run directory of its own, for eval.py and pretrained.convert. The checkpoints must be
there: train with config.checkpoint.every_epochs, or every_steps, and a config.checkpoint.keep_last
that keeps all.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags

from errors import FileError, MissingFileError, UserError
from files import read_object, read_text, write_text
from models import parameters
from paths import absolute, glob, local_copy, whole
from training import cli
from training.checkpoints import DATA_FILE, FIXED, read_config


def average_weights(trees: Iterable):
    """The mean of trees of float32 arrays, summed in float64: one tree in memory at a time."""
    total, count = None, 0
    for tree in trees:
        tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        total = tree if total is None else jax.tree.map(np.add, total, tree)
        count += 1
    if not count:
        raise UserError("no weights to average")
    return jax.tree.map(lambda leaf: (leaf / count).astype(np.float32), total)


def ends_of_epochs(workdir: Path, first: int, last: int) -> list[int]:
    """The steps that end these epochs of a run, both included."""
    read_config(workdir)
    per_epoch = read_object(absolute(workdir) / DATA_FILE)["steps_per_epoch"]
    return [epoch * per_epoch for epoch in range(first, last + 1)]


def saved_steps(workdir: Path, first: int, last: int) -> list[int]:
    """The steps from first to last, both included, after which a run saves its state.

    Raises:
      UserError: it saves by epochs.
    """
    every = read_config(workdir)["checkpoint"]["every_steps"]
    if not every:
        raise UserError(f"{workdir} has checkpoints of epochs: give --first_epoch and --last_epoch")
    return [step for step in range(first, last + 1) if step > 0 and step % every == 0]


def average_run(workdir: Path, output: Path, steps: Sequence[int]) -> None:
    """Writes a run directory whose one checkpoint, of the last step, holds the averaged weights.

    Args:
      workdir: a run directory.
      output: made; it must not be there.
      steps: of the checkpoints.

    Raises:
      MissingFileError: workdir has no checkpoint of one of the steps.
      FileError: output is there.
    """
    workdir, output = absolute(workdir), absolute(output)
    folders = [workdir / "checkpoints" / str(step) / "params" for step in steps]
    missing = [str(step) for step, path in zip(steps, folders, strict=True) if not path.is_dir()]
    if missing or not steps:
        raise MissingFileError(
            f"{workdir} has no checkpoints of the steps {', '.join(missing) or 'asked for'}: train "
            "with config.checkpoint.every_epochs=1, or every_steps, and a "
            "config.checkpoint.keep_last that keeps all"
        )
    if output.exists():
        raise FileError(f"{output} is there: give another --output")
    fixed = workdir / FIXED / "params"
    frozen = read_weights(fixed) if fixed.exists() else {}
    # Whole parameters: the mean of LoRA's products is no product of means.
    averaged = average_weights(parameters.merge(read_weights(path), frozen) for path in folders)
    with ocp.StandardCheckpointer() as writer:
        writer.save(output / "checkpoints" / str(steps[-1]) / "params", averaged)
        writer.wait_until_finished()
    for path in glob(workdir, "*.json"):
        if path.name != "results.json":
            write_text(output / path.name, read_text(path))
    with whole(output / "tokenizer") as folder:
        shutil.copytree(local_copy(workdir / "tokenizer"), folder)


def read_weights(folder: Path):
    """The weights in a checkpoint's folder params, as arrays of the host."""
    with ocp.PyTreeCheckpointer() as reader:
        metadata = reader.metadata(folder).item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=on_host))


def main() -> None:
    args = flags.FLAGS
    match (args.first_epoch, args.last_epoch), (args.first_step, args.last_step):
        case (int(first), int(last)), (None, None):
            steps = ends_of_epochs(args.workdir, first, last)
        case (None, None), (int(first), int(last)):
            steps = saved_steps(args.workdir, first, last)
        case _:
            raise UserError("give --first_epoch and --last_epoch, or --first_step and --last_step")
    average_run(args.workdir, args.output, steps)
    print(f"{args.output}: the mean of {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}")


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "A run directory.", required=True)
    flags.DEFINE_string("output", None, "The run directory to write.", required=True)
    for unit in ("epoch", "step"):
        flags.DEFINE_integer(f"first_{unit}", None, f"The first {unit} of the range.")
        flags.DEFINE_integer(f"last_{unit}", None, "The last one, included.")


if __name__ == "__main__":
    cli.run(main, define_flags)
