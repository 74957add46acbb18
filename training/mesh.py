"""The device mesh, and the one table that says where every named axis goes.

Layers name the axes of their parameters and activations; LOGICAL_AXES maps the names to mesh axes.
A name that is not in the table is an error: nothing is replicated by accident.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

REPLICATED = frozenset({"class_text"})  # fields of a batch that have no row for each sample

LOGICAL_AXES: Mapping[str | None, str | tuple[str, ...] | None] = {
    None: None,
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "qkv": None,
    "mlp": "tensor",
    "vocab": None,  # the look-up gathers the table anyway, and its size may be odd
    "position": None,
    "patch": None,
    "projection": None,
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """A (data, fsdp, tensor) mesh over all devices; data=-1 takes what the other two leave.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = max(1, len(devices) // max(1, fsdp * tensor))
    shape = (data, fsdp, tensor)
    if np.prod(shape) != len(devices):
        sizes = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, shape, strict=True))
        raise UserError(
            f"a mesh of {sizes} needs {np.prod(shape)} devices, but there are {len(devices)}: "
            "change config.mesh (data=-1 takes what the other axes leave)"
        )
    # Linen's annotations fail under Explicit axes, the default of jax.make_mesh.
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def partition_spec(names) -> PartitionSpec:
    """Maps the logical names of an array's axes to mesh axes.

    Raises:
      UserError: a name that LOGICAL_AXES does not list, or two that lie on one mesh axis.
    """
    for name in names:
        if name not in LOGICAL_AXES:
            known = ", ".join(sorted(filter(None, LOGICAL_AXES)))
            raise UserError(
                f"unknown logical axis '{name}' in {tuple(names)}; training/mesh.py lists {known}"
            )
    spec = [LOGICAL_AXES[name] for name in names]
    for axis in MESH_AXES:
        on_axis = [name for name, axes in zip(names, spec, strict=True) if axis in _axes(axes)]
        if len(on_axis) > 1:
            raise UserError(
                f"the axes {' and '.join(on_axis)} of one array, {tuple(names)}, both lie on the "
                f"mesh axis '{axis}': name one of them otherwise, or change training/mesh.py"
            )
    return PartitionSpec(*spec)


def _axes(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()


def tree_shardings(mesh: Mesh, boxed):
    """NamedShardings for a tree of (shape structs of) logically partitioned arrays.

    Args:
      boxed: what jax.eval_shape returns for a function of Linen's boxed parameters; leaves without
        names are replicated.

    Returns:
      The tree, unboxed, with a NamedSharding at every leaf.

    Raises:
      UserError: an unknown axis name, a mesh axis that is used twice, or a size that the mesh does
        not divide; with the parameter's name.
    """

    def leaf_sharding(path, spec, leaf):
        try:
            sharding = NamedSharding(mesh, partition_spec(spec))
        except UserError as error:
            raise UserError(f"{jax.tree_util.keystr(path)}: {error}") from None
        for size, axes in zip(leaf.shape, sharding.spec, strict=False):
            ways = math.prod(mesh.shape[axis] for axis in _axes(axes))
            if size % ways:
                raise UserError(
                    f"{jax.tree_util.keystr(path)} of shape {leaf.shape}: the mesh axis {axes} "
                    f"of size {ways} does not divide {size}; change config.mesh"
                )
        return sharding

    specs = meta.get_partition_spec(boxed)
    return jax.tree_util.tree_map_with_path(
        leaf_sharding, specs, meta.unbox(boxed), is_leaf=lambda x: isinstance(x, PartitionSpec)
    )


def constraint(mesh: Mesh) -> Callable[[jax.Array, tuple], jax.Array]:
    """The function that models call to lay out an activation: (x, axis names) -> x."""

    def constrain(x, names):
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, partition_spec(names)))

    return constrain


def by_part(mesh: Mesh) -> Callable[[Callable, Sequence[tuple], tuple], Callable]:
    """The function that models call to have each device compute its part of something alone:
    (function, axis names of each argument, axis names of the result) -> function."""

    def part(function, names, result):
        specs = tuple(map(partition_spec, names))
        # Pallas' calls do not say along which axes of a mesh their results vary.
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=partition_spec(result), check_vma=False
        )

    return part


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How the leading axis of a batch lies on the mesh."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def batch_shards(mesh: Mesh) -> int:
    """Parts that the leading axis of a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch_size(mesh: Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Raises UserError where mesh and microbatches do not divide the global batch."""
    ways = batch_shards(mesh)
    for name, number in (("batch_size", batch_size), ("microbatches", microbatches)):
        if number < 1:
            raise UserError(f"config.{name}={number} must be at least 1")
    if batch_size % ways:
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by the {ways} shards of the batch "
            f"(mesh data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']})"
        )
    if batch_size % (ways * microbatches):
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by {ways} shards of the batch times "
            f"config.microbatches={microbatches}"
        )


def field_sharding(mesh: Mesh, name: str) -> NamedSharding:
    """How a field of a batch lies on the mesh."""
    of_all = name.rpartition("/")[2] in REPLICATED
    return NamedSharding(mesh, PartitionSpec()) if of_all else batch_sharding(mesh)


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows of a batch, and of what all processes have."""
    return {
        name: jax.make_array_from_process_local_data(field_sharding(mesh, name), x)
        for name, x in batch.items()
    }
