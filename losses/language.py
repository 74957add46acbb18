"""Losses of language models: of the log-probabilities that they give to texts."""

import jax
import jax.numpy as jnp


def negative_log_likelihood(log_probabilities: jax.Array, completion: jax.Array) -> jax.Array:
    """Mean over the tokens of all completions.

    Args:
      log_probabilities: [..., L], of each token.
      completion: bool [..., L], the tokens that count.
    """
    total = -jnp.sum(jnp.where(completion, log_probabilities, 0))
    return total / jnp.maximum(jnp.sum(completion), 1)


def completion_log_probability(log_probabilities: jax.Array, completion: jax.Array) -> jax.Array:
    """Sum over the tokens of each completion: [..., L] and bool [..., L] -> [...]."""
    return jnp.sum(jnp.where(completion, log_probabilities, 0), axis=-1)


def dpo(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """Mean of -log sigmoid(beta * (chosen - rejected)).

    Args:
      chosen, rejected: [N], log-probability of a completion less that under the reference.

    Source: DPO (arXiv 2305.18290), equation 7.
    """
    return -jnp.mean(jax.nn.log_sigmoid(beta * (chosen - rejected)))
