"""Our attention kernel, interpreted, against XLA's: values, gradients, meshes; what it costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from data.packing import pack
from errors import UserError
from models import attention, fused_attention, zoo
from models.clip import CLIP, init_params
from models.transformer import Compute
from planning import cost
from training import mesh as meshes

HEADS, HEAD_DIM = 4, 32
PALLAS = Compute(attention="pallas")


def inputs(n, length, heads=HEADS, head_dim=HEAD_DIM, dtype=jnp.float32):
    """Queries, keys, values, a gradient of what they gather; a mask of several texts a row, and of
    places that see nothing."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, length, heads, head_dim)) for _ in range(4)]
    owner = np.sort(rng.integers(0, 4, (n, length)), axis=1)
    mask = owner[:, None, :, None] == owner[:, None, None, :]
    mask[:, :, length // 2] = False
    return [jnp.asarray(x, dtype) for x in arrays], jnp.asarray(mask)


def value_and_gradients(attend, arrays, mask):
    *qkv, gradient = arrays
    out, backward = jax.vjp(lambda *x: attend(*x, mask=mask), *qkv)
    return [out, *backward(gradient)]


def both(n, length, masked, is_causal, dtype=jnp.float32, compute=PALLAS):
    arrays, mask = inputs(n, length, dtype=dtype)
    mask = mask if masked else None
    run = jax.jit(value_and_gradients, static_argnums=0)
    ours = run(attention.of(compute, is_causal), arrays, mask)
    return ours, run(attention.of(Compute(attention="xla"), is_causal), arrays, mask)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n, length", [(1, 7), (8, 16), (11, 13)])
def test_it_is_xlas_in_value_and_gradient(n, length, masked, is_causal):
    """Fewer rows than a block, a block, and one that is not full."""
    for ours, theirs in zip(*both(n, length, masked, is_causal), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_in_16_bits_it_is_as_near_as_xlas():
    exact, _ = both(8, 20, True, True)
    rounded = both(8, 20, True, True, jnp.bfloat16)
    for right, ours, theirs in zip(exact, *rounded, strict=True):
        error, allowed = (np.abs(np.float32(x) - right).max() for x in (ours, theirs))
        assert ours.dtype == jnp.bfloat16 and error <= 2 * allowed


@pytest.mark.parametrize(
    "length, heads, head_dim, itemsize, at_once",
    [
        (77, 8, 64, 2, 8),  # B/32's texts
        (50, 12, 64, 2, 12),  # its images: narrow enough
        (77, 8, 64, 4, 4),
        (257, 16, 64, 2, 2),  # L/14's: as few heads as fill tiles
        (257, 16, 80, 2, 8),  # H/14's: eight heads of 80 fill five tiles
        (257, 3, 40, 2, 3),  # no number of them does
    ],
)
def test_a_program_takes_as_many_heads_as_fit(length, heads, head_dim, itemsize, at_once):
    assert fused_attention._heads_at_once(length, heads, head_dim, itemsize) == at_once


def test_heads_in_several_programs_are_the_same(monkeypatch):
    """HEADS of HEAD_DIM fill a tile: twice as many are cut in two, where they do not fit."""
    arrays, mask = inputs(9, 12, heads=2 * HEADS)
    attend = functools.partial(fused_attention.fused_attention, is_causal=True)
    at_once = value_and_gradients(attend, arrays, mask)
    monkeypatch.setattr(fused_attention, "_VMEM", 0)
    assert fused_attention._heads_at_once(12, 2 * HEADS, HEAD_DIM, 4) == HEADS
    for one, other in zip(at_once, value_and_gradients(attend, arrays, mask), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [16, 3])
@pytest.mark.parametrize("data, fsdp, tensor", [(8, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_each_device_computes_its_rows_and_heads(data, fsdp, tensor, n):
    """Also where the devices do not divide the rows."""
    mesh = meshes.make_mesh(data, fsdp, tensor)
    shards = meshes.batch_shards(mesh)
    compute = Compute(attention="pallas", by_part=meshes.by_part(mesh), shards=shards)
    for ours, theirs in zip(*both(n, 9, True, True, compute=compute), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "packed, remat", [(False, "none"), (True, "full"), (True, "dots_no_batch")]
)
def test_a_models_gradient_is_the_same(packed, remat):
    """Both towers, a loop over layers."""
    shape = dataclasses.replace(zoo.shape("tiny"), video=None)
    text = np.zeros((8, shape.text.context_length), np.int32)
    text[:, :3] = 1, 2, shape.text.eos_token_id
    packing = pack(text[None], text.shape[1], lambda rows: rows) if packed else None
    size = shape.vision.image_size
    image = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype(np.float32)

    def gradient(name):
        model = CLIP(shape, Compute(attention=name, remat=remat))
        params = meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))

        def loss(params):
            out = model.apply({"params": params}, image, text, packing=packing)
            return jnp.sum(jnp.sin(out.image @ out.text.T))

        return jax.jit(jax.grad(loss))(params)

    xla, ours = gradient("xla"), gradient("pallas")
    for a, b in zip(jax.tree.leaves(xla), jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())


def test_grouped_heads_are_xlas():
    arrays, mask = inputs(2, 6)
    query, key, value = arrays[0], arrays[1][:, :, :2], arrays[2][:, :, :2]
    ours, xla = (attention.of(Compute(attention=name)) for name in ("pallas", "xla"))
    np.testing.assert_array_equal(ours(query, key, value, mask), xla(query, key, value, mask))


def test_its_products_are_counted():
    """Two of L^2 d forwards, five backwards, of which XLA's need four; nobody's are hidden."""
    n, length = 16, 24
    pair = 2 * n * length**2 * HEADS * HEAD_DIM
    arrays, mask = inputs(n, length)
    for name, backward in (("xla", 4), ("pallas", 5)):
        attend = attention.of(Compute(attention=name), True)
        function = functools.partial(value_and_gradients, attend)
        assert cost.traced_flops(function, arrays, mask) == (2 + backward) * pair
        compiled = jax.jit(function).lower(arrays, mask).compile()
        assert cost.cost_of(compiled.as_text(), 1).flops == (2 + backward) * pair


def test_a_gpu_has_another(monkeypatch):
    from tests.models.test_attention import devices

    devices(monkeypatch)
    with pytest.raises(UserError, match="is 'pallas', but the devices are H100, not TPUs: give"):
        attention.choose(Compute(attention="pallas"))
