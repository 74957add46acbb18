"""The table of axes: everything named, nothing replicated by accident."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax.sharding import PartitionSpec as P

from training import mesh as meshes


def test_data_takes_what_the_others_leave():
    mesh = meshes.make_mesh(fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"fsdp": 0}, {"data": 2, "tensor": 8}])
def test_a_mesh_that_does_not_fit_the_devices(sizes):
    with pytest.raises(ValueError, match="there are 8"):
        meshes.make_mesh(**sizes)


def test_an_unknown_axis_is_an_error():
    with pytest.raises(ValueError, match="'embde'.*embed"):
        meshes.partition_spec(("layers", "embde"))


def boxed(shape, names):
    return {"w": meta.Partitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)}


def test_shardings_follow_the_names():
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    shardings = meshes.tree_shardings(mesh, boxed((4, 6, 8), ("layers", "embed", "mlp")))
    assert shardings["w"].spec == P(None, "fsdp", "tensor")


def test_a_mesh_axis_is_used_once_in_an_array():
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    message = r"\['w'\]: the axes heads and mlp of one array, \('heads', 'mlp'\), .* 'tensor'"
    with pytest.raises(ValueError, match=message):
        meshes.tree_shardings(mesh, boxed((4, 6), ("heads", "mlp")))
    # The batch lies on two mesh axes, of which another axis may use none.
    with pytest.raises(ValueError, match="the axes batch and embed .* 'fsdp'"):
        meshes.constraint(mesh)(jnp.zeros((8, 8)), ("batch", "embed"))
    with pytest.raises(ValueError, match=r"\['w'\]: unknown logical axis 'embde'"):
        meshes.tree_shardings(mesh, boxed((4, 6), ("heads", "embde")))


def test_a_size_that_the_mesh_does_not_divide():
    mesh = meshes.make_mesh(data=1, fsdp=4, tensor=2)
    with pytest.raises(ValueError, match=r"\['w'\] of shape \(4, 6\).*size 4 does not divide 6"):
        meshes.tree_shardings(mesh, boxed((4, 6), ("heads", "embed")))


def test_batch_size_must_be_divisible():
    mesh = meshes.make_mesh(data=4, fsdp=2)
    meshes.check_batch_size(mesh, 16)
    meshes.check_batch_size(mesh, 16, 2)
    with pytest.raises(ValueError, match="batch_size=12.*8 shards"):
        meshes.check_batch_size(mesh, 12)
    with pytest.raises(
        ValueError, match="batch_size=16 .* 8 shards .* times config.microbatches=3"
    ):
        meshes.check_batch_size(mesh, 16, 3)
    with pytest.raises(ValueError, match="microbatches=0 must be at least 1"):
        meshes.check_batch_size(mesh, 16, 0)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        meshes.check_batch_size(mesh, 0)


def test_put_batch_spreads_rows_in_order():
    mesh = meshes.make_mesh()
    batch = {"x": np.arange(32).reshape(16, 2)}
    x = meshes.put_batch(mesh, batch)["x"]
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(x, batch["x"])
