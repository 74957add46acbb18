"""Softmax contrast of images and texts over the global batch: CLIP and NegCLIP."""

import jax
import jax.numpy as jnp

from losses.similarity import MASKED, pairwise


def _cross_entropy_of_diagonal(logits: jax.Array) -> jax.Array:
    """Mean cross-entropy of rows [N, M >= N] whose right answer is column i of row i."""
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits))


def info_nce(image: jax.Array, text: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Symmetric InfoNCE: mean of image-to-text and text-to-image cross-entropy.

    Args:
      image, text: [N, D], unit norm; row i of one belongs to row i of the other.
      logit_scale: [], the multiplier of cosine similarities.

    Source: CLIP (arXiv 2103.00020), figure 3.
    """
    logits = logit_scale * pairwise(image, text)
    return (_cross_entropy_of_diagonal(logits) + _cross_entropy_of_diagonal(logits.T)) / 2


def negclip(
    image: jax.Array,
    text: jax.Array,
    negatives: jax.Array,
    valid: jax.Array,
    logit_scale: jax.Array,
) -> jax.Array:
    """InfoNCE in which every image also has all hard negatives of the batch as wrong texts.

    Args:
      image, text: [N, D], unit norm.
      negatives: [N, K, D], unit norm.
      valid: bool [N, K], False where a slot holds no negative.
      logit_scale: [].

    Source: ARO (arXiv 2210.01936), section 4; text rows contrast the N captions only.
    """
    captions = logit_scale * pairwise(image, text)
    hard = logit_scale * pairwise(image, negatives.reshape(-1, negatives.shape[-1]))
    hard = jnp.where(valid.reshape(1, -1), hard, MASKED)
    image_rows = jnp.concatenate([captions, hard], axis=1)
    return (_cross_entropy_of_diagonal(image_rows) + _cross_entropy_of_diagonal(captions.T)) / 2
