"""Parameters of which a part learns: how the two parts lie in trees, and how they make one model.

What learns and what does not are two nested dicts with the paths of the whole. Where one parameter
is parted, a dict stands in its place: of layers that learn above others that do not
(FROZEN_LAYERS, LEARNED_LAYERS), or of a matrix that only a product of low rank is added to
(LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1). So the trees say themselves what they are.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.linen import dtypes

FROZEN_LAYERS, LEARNED_LAYERS = "frozen_layers", "learned_layers"
BASE, LORA_A, LORA_B, LORA_SCALE = "frozen", "lora_a", "lora_b", "lora_scale"
PARTS = (FROZEN_LAYERS, LEARNED_LAYERS, BASE, LORA_A, LORA_B, LORA_SCALE)


@struct.dataclass
class LowRank:
    """base + scale * a b, which stands for an array wherever one is asked for.

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

    def __getitem__(self, index):
        return jnp.asarray(self)[index]

    def astype(self, dtype):
        return jnp.asarray(self).astype(dtype)

    shape = property(lambda self: self.base.shape)
    ndim = property(lambda self: self.base.ndim)
    dtype = property(lambda self: self.base.dtype)


def join(learned, frozen):
    """The parameters of a model from those that learn and those that do not.

    Args:
      learned: where both hold an array at one path, this one counts.
      frozen: {} where all learn.

    Returns:
      A tree like the model's, with LowRank in the place of some arrays.
    """
    return _whole(_union(learned, frozen)) if frozen else learned


def merge(learned, frozen):
    """join(), all arrays."""
    whole = join(learned, frozen)
    return jax.tree.map(jnp.asarray, whole, is_leaf=lambda leaf: isinstance(leaf, LowRank))


def _union(learned, frozen):
    if not isinstance(learned, Mapping):
        return learned
    both = {name: _union(learned[name], frozen[name]) for name in learned.keys() & frozen.keys()}
    return {**frozen, **learned, **both}


def _whole(tree):
    """Puts together what is parted, from the leaves up."""
    if not isinstance(tree, Mapping):
        return tree
    parts = {name: _whole(part) for name, part in tree.items()}
    if LEARNED_LAYERS in parts:
        return jnp.concatenate([parts[FROZEN_LAYERS], jnp.asarray(parts[LEARNED_LAYERS])])
    if LORA_A in parts:
        return LowRank(parts[BASE], parts[LORA_A], parts[LORA_B], parts[LORA_SCALE])
    return parts.get(BASE, parts)


def promote_dtype(*arrays, dtype=None, inexact=True):
    """Flax's function of this name, in which a LowRank stays one."""
    leaves, structure = jax.tree.flatten(arrays)
    return structure.unflatten(dtypes.promote_dtype(*leaves, dtype=dtype, inexact=inexact))


def dot_general(x, kernel, dimension_numbers, precision=None, **options):
    """jax.lax.dot_general for a kernel that may be LowRank."""

    def dot(x, kernel, numbers=dimension_numbers):
        return jax.lax.dot_general(x, kernel, numbers, precision, **options)

    if not isinstance(kernel, LowRank):
        return dot(x, kernel)
    (_, contracted), (batch, _) = dimension_numbers
    if batch or kernel.scale.ndim or tuple(contracted) != tuple(range(kernel.inputs)):
        return dot(x, jnp.asarray(kernel))
    low = dot(x, kernel.a)
    last = (((low.ndim - 1,), (0,)), ((), ()))
    return dot(x, kernel.base) + kernel.scale * dot(low, kernel.b, last)


# Flax's layers, for kernels that may be LowRank.
Dense = functools.partial(nn.Dense, promote_dtype=promote_dtype, dot_general=dot_general)
DenseGeneral = functools.partial(
    nn.DenseGeneral, promote_dtype=promote_dtype, dot_general=dot_general
)
