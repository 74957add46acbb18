"""CE-CLIP's two terms on a sample's own hard negatives (arXiv 2306.08832)."""

import jax
import jax.numpy as jnp

from losses.similarity import MASKED, masked_mean, paired, with_own


def intra_modal_contrast(
    image: jax.Array,
    text: jax.Array,
    negatives: jax.Array,
    valid: jax.Array,
    logit_scale: jax.Array,
) -> jax.Array:
    """IMC: mean of -log(exp S(I, T) / sum_k exp S(T, T_k)), which drives T_k away from T.

    Args:
      image, text: [N, D], unit norm.
      negatives: [N, K, D], unit norm; T_k is the negative of type k.
      valid: bool [N, K]; the mean is over samples that have a negative, 0 if none has.
      logit_scale: [], S is logit_scale times cosine.

    Source: CE-CLIP (arXiv 2306.08832), intra-modal contrastive loss. The sum has no positive in it,
    so the loss may be negative.
    """
    alternatives = jnp.where(valid, logit_scale * with_own(text, negatives), MASKED)
    positive = logit_scale * paired(image, text)
    return masked_mean(jax.nn.logsumexp(alternatives, axis=1) - positive, jnp.any(valid, axis=1))


def cross_modal_rank(
    image: jax.Array,
    text: jax.Array,
    negatives: jax.Array,
    valid: jax.Array,
    logit_scale: jax.Array,
    thresholds: jax.Array,
    max_threshold: float = 10.0,
) -> tuple[jax.Array, jax.Array]:
    """CMR: mean of max(0, S(I, T_k) - S(I, T) + Th_k), and the thresholds for the next step.

    The next Th_k is this batch's mean gap S(I, T) - S(I, T_k) in [0, max_threshold], without
    gradient; a type that no sample of the batch has keeps its threshold.

    Args:
      image, text: [N, D], unit norm.
      negatives: [N, K, D], unit norm.
      valid: bool [N, K]; the means are over the negatives that there are.
      logit_scale: [], S is logit_scale times cosine.
      thresholds: [K], from the previous step; 0 at the first.
      max_threshold: upper bound, in units of S.

    Returns:
      The loss [] and the next thresholds [K].

    Source: CE-CLIP (arXiv 2306.08832), cross-modal rank loss with adaptive threshold.
    """
    gap = logit_scale * (paired(image, text)[:, None] - with_own(image, negatives))
    loss = masked_mean(jax.nn.relu(thresholds[None, :] - gap), valid)
    mean_gap = jax.vmap(masked_mean, in_axes=1)(jax.lax.stop_gradient(gap), valid)
    adapted = jnp.clip(mean_gap, 0, max_threshold)
    return loss, jnp.where(jnp.any(valid, axis=0), adapted, thresholds)
