"""Averages a run's weights over its checkpoints, as FROSTER does over epochs (section 4.1).

    python -m training.checkpoint_mean --workdir=RUN --first_epoch=2 \
        --last_epoch=22 --output=AVERAGED

AVERAGED is a run directory of its own, for eval.py and pretrained.convert. The checkpoints must be
there: train with config.checkpoint.every_epochs and a config.checkpoint.keep_last that keeps all.
"""

import shutil
from collections.abc import Iterable
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


def average_run(workdir: Path, output: Path, first_epoch: int, last_epoch: int) -> list[int]:
    """Writes a run directory whose one checkpoint holds the averaged weights.

    Args:
      workdir: a run directory.
      output: made; it must not be there.
      first_epoch, last_epoch: the range, both included.

    Returns:
      The steps of the checkpoints that were averaged.

    Raises:
      MissingFileError: workdir is no run, or a checkpoint of the range is not there.
      FileExistsError: output is there.
    """
    workdir, output = absolute(workdir), absolute(output)
    read_config(workdir)
    per_epoch = read_object(workdir / DATA_FILE)["steps_per_epoch"]
    steps = [epoch * per_epoch for epoch in range(first_epoch, last_epoch + 1)]
    folders = [workdir / "checkpoints" / str(step) / "params" for step in steps]
    missing = [str(step) for step, path in zip(steps, folders, strict=True) if not path.is_dir()]
    if missing or not steps:
        raise MissingFileError(
            f"{workdir} has no checkpoints of the steps {', '.join(missing) or 'asked for'}: train "
            "with config.checkpoint.every_epochs=1 and a config.checkpoint.keep_last that keeps all"
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
    return steps


def read_weights(folder: Path):
    """The weights in a checkpoint's folder params, as arrays of the host."""
    with ocp.PyTreeCheckpointer() as reader:
        metadata = reader.metadata(folder).item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=on_host))


def main() -> None:
    args = flags.FLAGS
    steps = average_run(args.workdir, args.output, args.first_epoch, args.last_epoch)
    print(f"{args.output}: the mean of {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}")


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "A run directory.", required=True)
    flags.DEFINE_string("output", None, "The run directory to write.", required=True)
    flags.DEFINE_integer("first_epoch", None, "The first epoch of the range.", required=True)
    flags.DEFINE_integer("last_epoch", None, "The last one, included.", required=True)


if __name__ == "__main__":
    cli.run(main, define_flags)
