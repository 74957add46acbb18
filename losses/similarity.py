"""Cosine similarities of unit-norm embeddings, and how a loss leaves out what is not there."""

import jax
import jax.numpy as jnp

# On a TPU a float32 product is rounded to bfloat16 by default, and logit_scale makes that 0.4.
_PRECISION = jax.lax.Precision.HIGHEST

# Finite, so that gradients stay finite; exp(MASKED - any logit) is exactly zero.
MASKED = -1e9


def paired(a: jax.Array, b: jax.Array) -> jax.Array:
    """Row i of a with row i of b: [N, D], [N, D] -> [N]."""
    return jnp.sum(a * b, axis=-1)


def pairwise(a: jax.Array, b: jax.Array) -> jax.Array:
    """Every row of a with every row of b: [N, D], [M, D] -> [N, M]."""
    return jnp.matmul(a, b.T, precision=_PRECISION)


def with_own(a: jax.Array, negatives: jax.Array) -> jax.Array:
    """Row i of a with the K negatives of sample i: [N, D], [N, K, D] -> [N, K]."""
    return jnp.einsum("nd,nkd->nk", a, negatives, precision=_PRECISION)


def masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of x where valid, 0 if nothing is: any shape, bool of that shape -> scalar."""
    return jnp.sum(jnp.where(valid, x, 0)) / jnp.maximum(jnp.sum(valid), 1)
