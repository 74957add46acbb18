"""What train.py --dry_run prints: the batch, the parameters, what learns, and the memory."""

import math
from collections import defaultdict

import jax
from flax import traverse_util

from trainer import Course, Run
from training import loop
from training import mesh as meshes


def describe(run: Run, course: Course, source, extras) -> str:
    """A run in text, from one real batch and the compiled step."""
    batch = next(iter(run.batches(source, extras, seed=run.config.seed)))
    fields = {name: rows for name, rows in batch.items() if name not in loop.COUNTERS}
    compiled = course.step.lower(course.abstract, meshes.put_batch(run.mesh, fields)).compile()
    parts = (_batch(run, fields), _parameters(course.abstract), _memory(course, compiled))
    return "\n".join(line for part in parts for line in part)


def _batch(run: Run, fields) -> list[str]:
    axes = ", ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items())
    lines = [f"mesh: {axes}", "batch, of this process:"]
    lines += [f"  {name:24} {rows.dtype} {list(rows.shape)}" for name, rows in fields.items()]
    return lines


def _parameters(state) -> list[str]:
    learned, frozen = (_flat(tree) for tree in (state.params, state.fixed["params"]))
    number = {name: sum(math.prod(leaf.shape) for leaf in tree.values())
              for name, tree in (("learn", learned), ("do not", frozen))}  # fmt: skip
    lines = [f"parameters: {number['learn']:,} learn, {number['do not']:,} do not"]
    for mark, tree in (("learns", learned), ("", frozen)):
        for path, leaf in sorted(tree.items()):
            lines.append(f"  {mark:7}{path:56} {leaf.dtype} {list(leaf.shape)}")
    return lines


def _flat(tree) -> dict:
    return traverse_util.flatten_dict(tree, sep="/") if tree else {}


def _memory(course: Course, compiled) -> list[str]:
    state, parts = course.abstract, defaultdict(int)
    trees = {
        "parameters": (state.params, state.fixed["params"]),
        "optimizer": state.opt_state,
        "teacher": (state.teacher, state.fixed["teacher"]),
        "carry": state.carry,
    }
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            shape = leaf.sharding.shard_shape(leaf.shape)
            parts[name] += math.prod(shape) * leaf.dtype.itemsize
    lines = ["memory of a device:"]
    lines += [f"  {name:24} {size / 1e6:10.1f} MB" for name, size in parts.items()]
    analysis = compiled.memory_analysis()
    if analysis is not None:
        working = analysis.temp_size_in_bytes
        lines += [f"  {'the step, beside them':24} {working / 1e6:10.1f} MB"]
    return lines
