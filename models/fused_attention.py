"""Attention that reads queries, keys and values once and writes what they gather: a Pallas kernel
for TPUs and rows so short that all weights of a head lie in vector memory (VMEM).

JAX's own kernels cut rows into blocks of 128 positions and give heads of 64 the room of 128; here
77 positions of 8 heads side by side stay what they are. Arrays are [L, ..., N, width], as XLA lays
out a tower's products: its tiles cut rows and width, both without remainder.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # as jax.nn.dot_product_attention has it
_ROWS = 8  # of a program, the least that a tile holds
_LANES = 128  # width of a tile
_VMEM = 12 * 2**20  # bytes that a program may take where narrower ones can be had
_COPIES = 18  # of a program's part of one array: read and written ahead, and turned
_VMEM_SPARE = 4 * 2**20  # for the weights of a head, and masks


class _Kernel(NamedTuple):
    """What a program is made for.

    Attributes:
      heads: of a program.
      width: of all of them.
    """

    heads: int
    width: int
    is_causal: bool


def fused_attention(query, key, value, mask=None, is_causal: bool = False):
    """Self-attention whose way back computes the weights again; interpreted but on TPUs.

    Args:
      query, key, value: [N, L, heads, head_dim].
      mask: bool [N, 1, L, L], which places (the last axis) each may see, or None.

    Returns:
      [N, L, heads, head_dim].
    """
    n, length, heads, head_dim = query.shape
    parts = [x.reshape(n, length, 1, -1) for x in (query, key, value)]
    qkv = jnp.concatenate(parts, axis=2).transpose(1, 2, 0, 3)
    masks = [] if mask is None else [mask[:, 0].astype(jnp.int8)]
    some = _heads_at_once(length, heads, head_dim, query.dtype.itemsize)
    out = _attend(qkv, masks, _Kernel(some, some * head_dim, is_causal))
    return out.transpose(1, 0, 2).reshape(query.shape)


def _heads_at_once(length: int, heads: int, head_dim: int, itemsize: int) -> int:
    """The most heads that fit, and the least that fill whole tiles where none do."""
    whole = [n for n in range(1, heads) if heads % n == 0 and n * head_dim % _LANES == 0]
    fit = [n for n in (*whole, heads) if _bytes(length, n * head_dim, itemsize) <= _VMEM]
    return max(fit, default=min((*whole, heads)))


def _bytes(length: int, width: int, itemsize: int) -> int:
    """Of VMEM that the way back takes."""
    return _COPIES * math.ceil(length / 8) * 8 * _ROWS * max(width, _LANES) * itemsize


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend(qkv, masks, kernel):
    length, _, n, width = qkv.shape
    return _call(_forward, kernel, [qkv], masks, (length, n, width), products=2)


def _attend_forward(qkv, masks, kernel):
    return _attend(qkv, masks, kernel), (qkv, masks)


def _attend_backward(kernel, residuals, gradient):
    qkv, masks = residuals
    arrays = [qkv, gradient.astype(qkv.dtype)]
    return _call(_backward, kernel, arrays, masks, qkv.shape, products=5), [None] * len(masks)


_attend.defvjp(_attend_forward, _attend_backward)


def _call(function, kernel: _Kernel, arrays, masks, shape, products: int):
    """Runs a program for each rows and heads.

    Args:
      products: of L^2 head_dim that it makes for a row and head.
    """
    length, n, width = shape[0], *shape[-2:]
    dtype, rows = arrays[0].dtype, min(n, _ROWS)
    out = jax.ShapeDtypeStruct(shape, dtype)

    def part(x):
        outer = x.shape[:-2]
        return pl.BlockSpec((*outer, rows, kernel.width), lambda i, j: (*[0] * len(outer), i, j))

    of_rows = pl.BlockSpec((rows, length, length), lambda i, j: (i, 0, 0))
    turned = [(rows, length, kernel.width)] * (3 + len(arrays) - 1)
    pairs = n * length**2
    call = functools.partial(
        pl.pallas_call,
        functools.partial(function, kernel),
        out_shape=out,
        grid=(pl.cdiv(n, rows), width // kernel.width),
        in_specs=[*map(part, arrays), *[of_rows] * len(masks)],
        out_specs=part(out),
        scratch_shapes=[pltpu.VMEM(shape, dtype) for shape in turned],
        cost_estimate=pl.CostEstimate(
            flops=2 * products * pairs * width,
            transcendentals=pairs * width // kernel.width * kernel.heads,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*arrays, *masks, out)),
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=_VMEM_SPARE + _bytes(length, kernel.width, dtype.itemsize),
        ),
    )
    tpu, default = call(), call(interpret=True)
    return jax.lax.platform_dependent(*arrays, *masks, tpu=tpu, default=default)


def _forward(kernel: _Kernel, qkv_ref, *refs):
    *masks, out_ref, q_rows, k_rows, v_rows = refs
    _turn_in(qkv_ref, q_rows, k_rows, v_rows)

    def attend(row, part, visible):
        q, k, v = q_rows[row, :, part], k_rows[row, :, part], v_rows[row, :, part]
        weights = _weights(q, k, visible).astype(v.dtype)
        # Nobody needs the head's queries again.
        q_rows[row, :, part] = _product(weights, v, 1, 0).astype(v.dtype)

    _each(kernel, masks, q_rows, attend)
    out_ref[...] = jnp.swapaxes(q_rows[...], 0, 1)


def _backward(kernel: _Kernel, qkv_ref, gradient_ref, *refs):
    *masks, out_ref, q_rows, k_rows, v_rows, gradient_rows = refs
    _turn_in(qkv_ref, q_rows, k_rows, v_rows)
    gradient_rows[...] = jnp.swapaxes(gradient_ref[...], 0, 1)

    def attend(row, part, visible):
        q, k, v = q_rows[row, :, part], k_rows[row, :, part], v_rows[row, :, part]
        gradient = gradient_rows[row, :, part]
        weights = _weights(q, k, visible)
        slope = _product(gradient, v, 1, 1)
        slope -= jnp.sum(weights * slope, axis=1, keepdims=True)
        # Of a place that sees nothing, which gathers the mean, the weights are no zeros.
        slope = _hidden(q.shape[1] ** -0.5 * weights * slope, visible, 0.0).astype(q.dtype)
        q_rows[row, :, part] = _product(slope, k, 1, 0).astype(q.dtype)
        k_rows[row, :, part] = _product(slope, q, 0, 0).astype(q.dtype)
        v_rows[row, :, part] = _product(weights.astype(q.dtype), gradient, 0, 0).astype(q.dtype)

    _each(kernel, masks, q_rows, attend)
    for i, rows in enumerate((q_rows, k_rows, v_rows)):
        out_ref[:, i] = jnp.swapaxes(rows[...], 0, 1)


def _turn_in(qkv_ref, *scratch):
    """From [L, 3, rows, width] to three of [rows, L, width]."""
    for i, rows in enumerate(scratch):
        rows[...] = jnp.swapaxes(qkv_ref[:, i], 0, 1)


def _each(kernel: _Kernel, masks, rows, attend):
    """Calls attend(row, slice of the width, what is visible) for every row and head."""
    count, length, _ = rows.shape
    size = kernel.width // kernel.heads

    def of_row(row, _):
        visible = [mask[row].astype(jnp.int32) != 0 for mask in masks]
        if kernel.is_causal:
            place = [jax.lax.broadcasted_iota(jnp.int32, (length, length), i) for i in range(2)]
            visible.append(place[0] >= place[1])
        for head in range(kernel.heads):
            attend(row, pl.ds(head * size, size), visible)

    jax.lax.fori_loop(0, count, of_row, None)


def _weights(q, k, visible):
    """float32 [L, L], each row adds to 1."""
    logits = _hidden(q.shape[1] ** -0.5 * _product(q, k, 1, 1), visible, _MASKED)
    weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _hidden(x, visible, value: float):
    """With that value for each pair that is not visible."""
    for seen in visible:
        x = jnp.where(seen, x, value)
    return x


def _product(a, b, axis_a: int, axis_b: int):
    """float32, summed over these axes."""
    dimensions = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
