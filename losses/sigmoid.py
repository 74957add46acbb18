"""Sigmoid contrast of images and texts: every pair is its own yes-or-no question (SigLIP)."""

import jax
import jax.numpy as jnp

from losses.similarity import over_rows, paired


def sigmoid_contrast(
    image: jax.Array, text: jax.Array, logit_scale: jax.Array, logit_bias: jax.Array
) -> jax.Array:
    """-mean_i sum_j log sigmoid(z_ij (logit_scale x_i.y_j + logit_bias)), z = 1 if i = j else -1.

    Args:
      image, text: [N, D], unit norm.
      logit_scale, logit_bias: [].

    Source: SigLIP (arXiv 2303.15343), section 3.2.
    """

    def all_wrong(similarities):
        return jnp.sum(jax.nn.log_sigmoid(-(logit_scale * similarities + logit_bias)), axis=1)

    # What makes the pairs on the diagonal right: log sigmoid(x) is log sigmoid(-x) + x.
    own = logit_scale * paired(image, text) + logit_bias
    return -jnp.mean(over_rows(all_wrong, image, text) + own)
