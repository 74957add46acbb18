"""CLIC's terms: an image of two halves and the texts that tell of both (NeurIPS 2025)."""

import jax
import jax.numpy as jnp

from losses.contrastive import cross_entropies
from losses.similarity import masked_mean, with_own


def contrast(
    image: jax.Array, texts: jax.Array, valid: jax.Array, logit_scale: jax.Array
) -> jax.Array:
    """InfoNCE of images with each of their J texts in turn, the mean over those that there are.

    Args:
      image: [N, D]; texts: [N, J, D], unit norm.
      valid: bool [N, J]; a sample without text j leaves the batch for it.
      logit_scale: [].
    """
    terms = jnp.stack(
        [
            _of_valid(image, texts[:, j], valid[:, j], logit_scale)
            + _of_valid(texts[:, j], image, valid[:, j], logit_scale)
            for j in range(texts.shape[1])
        ],
        axis=1,
    )
    return masked_mean(terms / 2, valid)


def _of_valid(rows, partners, valid, logit_scale):
    return cross_entropies(rows, partners, partners, logit_scale, valid[None])


def exchanged(
    image: jax.Array,
    texts: jax.Array,
    valid: jax.Array,
    negative: jax.Array,
    has_negative: jax.Array,
    logit_scale: jax.Array,
) -> jax.Array:
    """Cross-entropy of each of an image's texts over itself and the sample's hard negative.

    Args:
      image, negative: [N, D]; texts: [N, J, D], unit norm.
      valid: bool [N, J]; has_negative: bool [N]; the mean is over texts of samples with both.
      logit_scale: [].
    """
    gap = logit_scale * (jnp.sum(image * negative, axis=-1)[:, None] - with_own(image, texts))
    return masked_mean(jax.nn.softplus(gap), valid & has_negative[:, None])


def order_invariance(text: jax.Array, other: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean squared distance of two orders of the same captions: [N, D], [N, D], bool [N] -> []."""
    return masked_mean(jnp.sum(jnp.square(text - other), axis=-1), valid)
