"""Cosine similarities of unit-norm embeddings, and how a loss leaves out what is not there.

Of a contrast over the whole batch each device makes the rows of its own samples, against columns
that it has been sent: embeddings travel between devices, logits never do.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

# On a TPU a float32 product is rounded to bfloat16 by default, and logit_scale makes that 0.4.
_PRECISION = jax.lax.Precision.HIGHEST

# Logits that are in memory at once, over all devices: 512 MiB of float32.
MOST_LOGITS = 2**27

# Finite, so that gradients stay finite; exp(MASKED - any logit) is exactly zero.
MASKED = -1e9


def paired(a: jax.Array, b: jax.Array) -> jax.Array:
    """Row i of a with row i of b: [N, D], [N, D] -> [N]."""
    return jnp.sum(a * b, axis=-1)


def pairwise(a: jax.Array, b: jax.Array) -> jax.Array:
    """Every row of a with every row of b: [N, D], [M, D] -> [N, M]."""
    return jnp.matmul(a, _everywhere(b).T, precision=_PRECISION)


def _everywhere(x: jax.Array) -> jax.Array:
    """x on every device of the mesh that is in use; left to itself, the compiler moves logits."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, PartitionSpec())


def over_rows(function: Callable[[jax.Array], jax.Array], a: jax.Array, b: jax.Array) -> jax.Array:
    """function(pairwise(a, b)), a number for each row, without all the rows at once: -> [N].

    Where they would be too many, they are made in stretches, and again on the way back.

    Args:
      function: logits [n, M] -> [n], row by row.
      a, b: [N, D], [M, D].
    """
    n = len(a)
    stretches = next(s for s in range(1, n + 1) if n % s == 0 and n // s * len(b) <= MOST_LOGITS)
    if stretches == 1:
        return function(pairwise(a, b))
    # Every so many rows make a stretch: each device has its share of it.
    parts = a.reshape(-1, stretches, a.shape[-1]).swapaxes(0, 1)
    values = jax.lax.map(jax.checkpoint(lambda rows: function(pairwise(rows, b))), parts)
    return values.swapaxes(0, 1).reshape(n)


def with_own(a: jax.Array, negatives: jax.Array) -> jax.Array:
    """Row i of a with the K negatives of sample i: [N, D], [N, K, D] -> [N, K]."""
    return jnp.einsum("nd,nkd->nk", a, negatives, precision=_PRECISION)


def masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of x where valid, 0 if nothing is: any shape, bool of that shape -> scalar."""
    return jnp.sum(jnp.where(valid, x, 0)) / jnp.maximum(jnp.sum(valid), 1)
