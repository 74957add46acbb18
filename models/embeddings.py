"""What a CLIP model returns for a batch; the type at the boundary of models, losses and methods."""

import jax
from flax import struct


@struct.dataclass
class Embeddings:
    """Embeddings of a global batch of N samples with K hard negative captions each.

    Of N videos of T frames and C classes, image is [N, T, D] and text [C, D].

    Attributes:
      image: float32 [N, D], unit norm.
      text: float32 [N, D], unit norm; row i is the caption of image i.
      logit_scale: float32 [], the multiplier of cosine similarities (not its logarithm).
      negatives: float32 [N, K, D], unit norm, or None where the batch has none.
      logit_bias: float32 [], SigLIP's additive bias, or None.
      image_residual, text_residual: image and text after FROSTER's residual heads, not normalised,
        or None for a model without them.
    """

    image: jax.Array
    text: jax.Array
    logit_scale: jax.Array
    negatives: jax.Array | None = None
    logit_bias: jax.Array | None = None
    image_residual: jax.Array | None = None
    text_residual: jax.Array | None = None
