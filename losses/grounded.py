"""DeGLA's local contrasts: a sample against its own hard negatives (arXiv 2504.16801)."""

import jax
import jax.numpy as jnp

from errors import UserError
from losses.similarity import MASKED, paired, with_own


def _cross_entropy_of_positive(positive, negatives, valid):
    """Mean cross-entropy of logits [N] against those of K alternatives [N, K]."""
    logits = jnp.concatenate([positive[:, None], jnp.where(valid, negatives, MASKED)], axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)


def image_grounded(
    image: jax.Array,
    text: jax.Array,
    negatives: jax.Array,
    valid: jax.Array,
    logit_scale: jax.Array,
) -> jax.Array:
    """IGC: cross-entropy of each image over its caption and its own K hard negatives.

    Args:
      image, text: [N, D], unit norm.
      negatives: [N, K, D], unit norm.
      valid: bool [N, K], False where a slot holds no negative; a sample without any adds 0.
      logit_scale: [].

    Source: DeGLA (arXiv 2504.16801), image-grounded contrast.
    """
    return _cross_entropy_of_positive(
        logit_scale * paired(image, text), logit_scale * with_own(image, negatives), valid
    )


def text_grounded(
    text: jax.Array,
    teacher_text: jax.Array,
    negatives: jax.Array,
    valid: jax.Array,
    scale: float = 10.0,
    mask: str = "paper",
) -> jax.Array:
    """TGC: cross-entropy of each caption over the teacher's view of it and its K hard negatives.

    Args:
      text: [N, D], the student's captions, unit norm.
      teacher_text: [N, D], the teacher's embeddings of the same captions.
      negatives: [N, K, D], the student's hard negatives.
      valid: bool [N, K], False where a slot holds no negative; a sample without any adds 0.
      scale: fixed multiplier of the similarities, in place of logit_scale.
      mask: 'paper' contrasts sample i with its own negatives. 'released' does what the public code
        does: of the N * K negatives in sample-major order, sample i meets numbers i, i + N,
        i + 2N, ..., nearly all of other samples. Only 'paper' is invariant to batch order.

    Raises:
      UserError: an unknown mask.

    Source: DeGLA (arXiv 2504.16801), text-grounded contrast; get_text_local_loss of its code.
    """
    if mask == "released":
        n, k, d = negatives.shape
        negatives = negatives.reshape(k, n, d).swapaxes(0, 1)
        valid = valid.reshape(k, n).T
    elif mask != "paper":
        raise UserError(f"unknown TGC mask {mask!r}; give 'paper' or 'released'")
    return _cross_entropy_of_positive(
        scale * paired(text, teacher_text), scale * with_own(text, negatives), valid
    )
