"""Parameters that are kept in parts, or in few bits: how they lie in trees and make one model.

What learns and what does not are two nested dicts with the paths of the whole. Where one parameter
is parted, a dict stands in its place: of layers that learn above others that do not
(FROZEN_LAYERS, LEARNED_LAYERS), of a matrix that only a product of low rank is added to
(LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1), or of whole numbers and their scale. So the
trees say themselves what they are.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.linen import dtypes

FROZEN_LAYERS, LEARNED_LAYERS = "frozen_layers", "learned_layers"
BASE, LORA_A, LORA_B, LORA_SCALE = "frozen", "lora_a", "lora_b", "lora_scale"
INT8, INT8_SCALE = "int8", "int8_scale"
PARTS = (FROZEN_LAYERS, LEARNED_LAYERS, BASE, LORA_A, LORA_B, LORA_SCALE)


class _Lazy:
    """What stands for an array wherever one is asked for."""

    def __getitem__(self, index):
        return jnp.asarray(self)[index]

    def astype(self, dtype):
        return jnp.asarray(self).astype(dtype)

    @property
    def shape(self):
        return self._like.shape

    @property
    def ndim(self):
        return self._like.ndim

    @property
    def dtype(self):
        return self._like.dtype


@struct.dataclass
class LowRank(_Lazy):
    """base + scale * a b.

    The layers Dense and DenseGeneral below never compute it, nor its gradient.

    Attributes:
      base: [*L, *I, *O], for layers L (or none), inputs I and outputs O.
      a: [*L, *I, rank].
      b: [*L, rank, *O].
      scale: [*L].
    """

    base: jax.Array
    a: jax.Array
    b: jax.Array
    scale: jax.Array

    @property
    def inputs(self) -> int:
        """Number of axes I."""
        return self.a.ndim - self.scale.ndim - 1

    def __jax_array__(self):
        def product(base, a, b, scale):
            return base + scale * jnp.tensordot(a, b, axes=1)

        for _ in range(self.scale.ndim):
            product = jax.vmap(product)
        return product(self.base, self.a, self.b, self.scale)

    @property
    def _like(self):
        return self.base


@struct.dataclass
class Int8(_Lazy):
    """values * scale, of few bits.

    Attributes:
      values: int8 [*L, *I, *O], see LowRank.
      scale: [*L, 1 for each of I, *O].
    """

    values: jax.Array
    scale: jax.Array

    def __jax_array__(self):
        return self.values.astype(self.scale.dtype) * self.scale

    @property
    def _like(self):
        return jax.ShapeDtypeStruct(self.values.shape, self.scale.dtype)


def input_axes(shape: tuple[int, ...]) -> int:
    """How many axes of a matrix are inputs, where both sides may be several axes.

    A layer's inputs or its outputs are the residual stream, one axis about as wide as all the
    others together: the evenest split is that between inputs and outputs.
    """
    return max(range(1, len(shape)), key=lambda i: min(math.prod(shape[:i]), math.prod(shape[i:])))


def quantize(matrix: jax.Array, stacked: int) -> dict[str, jax.Array]:
    """A kernel of a dense layer as whole numbers of 8 bits, each output with its own scale.

    Args:
      stacked: 1 where the first axis is that of layers, else 0.
    """
    inputs = range(stacked, stacked + input_axes(matrix.shape[stacked:]))
    largest = jnp.max(jnp.abs(matrix), axis=tuple(inputs), keepdims=True)
    scale = jnp.maximum(largest / 127, jnp.finfo(matrix.dtype).tiny)
    return {INT8: jnp.round(matrix / scale).astype(jnp.int8), INT8_SCALE: scale}


def join(learned, frozen):
    """The parameters of a model from those that learn and those that do not.

    Args:
      learned: where both hold an array at one path, this one counts.
      frozen: {} where all learn.

    Returns:
      A tree like the model's, with LowRank in the place of some arrays.
    """
    return whole(_union(learned, frozen)) if frozen else learned


def merge(learned, frozen):
    """join(), all arrays."""
    return jax.tree.map(
        jnp.asarray, join(learned, frozen), is_leaf=lambda leaf: isinstance(leaf, _Lazy)
    )


def _union(learned, frozen):
    if not isinstance(learned, Mapping):
        return learned
    both = {name: _union(learned[name], frozen[name]) for name in learned.keys() & frozen.keys()}
    return {**frozen, **learned, **both}


def whole(tree):
    """Puts together what is parted, from the leaves up."""
    if not isinstance(tree, Mapping):
        return tree
    parts = {name: whole(part) for name, part in tree.items()}
    if INT8 in parts:
        return Int8(parts[INT8], parts[INT8_SCALE])
    if LEARNED_LAYERS in parts:
        return jnp.concatenate([parts[FROZEN_LAYERS], jnp.asarray(parts[LEARNED_LAYERS])])
    if LORA_A in parts:
        return LowRank(parts[BASE], parts[LORA_A], parts[LORA_B], parts[LORA_SCALE])
    return parts.get(BASE, parts)


def merged(kernel):
    """A kernel, or a bias, whose last two axes are one."""
    if isinstance(kernel, LowRank):
        return kernel.replace(base=merged(kernel.base), b=merged(kernel.b))
    if isinstance(kernel, Int8):
        return kernel.replace(values=merged(kernel.values), scale=merged(kernel.scale))
    return kernel.reshape(*kernel.shape[:-2], -1)


def _inputs_merged(kernel):
    """A kernel whose first two axes are one."""
    if isinstance(kernel, LowRank) and kernel.inputs == 2 and not kernel.scale.ndim:
        return kernel.replace(base=_inputs_merged(kernel.base), a=_inputs_merged(kernel.a))
    if isinstance(kernel, Int8):
        values, scale = _inputs_merged(kernel.values), _inputs_merged(kernel.scale)
        return kernel.replace(values=values, scale=scale)
    kernel = jnp.asarray(kernel)
    return kernel.reshape(-1, *kernel.shape[2:])


def promote_dtype(*arrays, dtype=None, inexact=True):
    """Flax's function of this name, in which what stands for an array goes on to."""
    leaves, structure = jax.tree.flatten(arrays)
    kept = [leaf.dtype == jnp.int8 for leaf in leaves]
    floats = [leaf for leaf, whole_number in zip(leaves, kept, strict=True) if not whole_number]
    promoted = iter(dtypes.promote_dtype(*floats, dtype=dtype, inexact=inexact))
    return structure.unflatten(
        leaf if whole_number else next(promoted)
        for leaf, whole_number in zip(leaves, kept, strict=True)
    )


def dot_general(x, kernel, dimension_numbers, precision=None, **options):
    """jax.lax.dot_general for a kernel that may be LowRank or Int8."""

    (axes, contracted), (batch, _) = dimension_numbers
    if not batch and tuple(axes) == (x.ndim - 2, x.ndim - 1) and tuple(contracted) == (0, 1):
        # Heads side by side: TPUs' tiles cut one axis of them all without remainder.
        x, kernel, contracted = x.reshape(*x.shape[:-2], -1), _inputs_merged(kernel), (0,)
        dimension_numbers = (((x.ndim - 1,), contracted), ((), ()))

    def dot(x, kernel, numbers=dimension_numbers):
        return jax.lax.dot_general(x, kernel, numbers, precision, **options)

    inputs = len(contracted)
    first = not batch and tuple(contracted) == tuple(range(inputs))
    if isinstance(kernel, LowRank) and first and not kernel.scale.ndim and kernel.inputs == inputs:
        low = dot(x, kernel.a)
        last = (((low.ndim - 1,), (0,)), ((), ()))
        return dot(x, kernel.base) + kernel.scale * dot(low, kernel.b, last)
    if isinstance(kernel, Int8) and first and math.prod(kernel.scale.shape[:inputs]) == 1:
        scale = kernel.scale.reshape(kernel.scale.shape[inputs:])
        return dot(x, kernel.values.astype(x.dtype)) * scale
    return dot(x, jnp.asarray(kernel))


# Flax's layers, for kernels that may be LowRank or Int8.
Dense = functools.partial(nn.Dense, promote_dtype=promote_dtype, dot_general=dot_general)
DenseGeneral = functools.partial(
    nn.DenseGeneral, promote_dtype=promote_dtype, dot_general=dot_general
)
