"""What a CLIP model returns for a batch; the type at the boundary of models, losses and methods."""

from collections.abc import Mapping

import jax
from flax import struct


@struct.dataclass
class Tokens:
    """A vector for each token of texts, in the joint space.

    Attributes:
      features: float32 [..., L, D], not normalised.
      valid: bool [..., L], from the start token to the end token; False for padding.
    """

    features: jax.Array
    valid: jax.Array


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
      texts: by role, the further texts of a sample: float32 [N, *S, D], unit norm, for the shape S
        that the method asks for.
      image_tokens: float32 [N, P, D], a vector for each of P patches, not normalised; and
      text_tokens, negative_tokens: Tokens of text [N, L, D] and negatives [N, K, L, D];
        all three None for a method that does not need them (methods/base.py).
      mapped: by name of a teacher that sees it through maps, all of this in its space
        (models/projection.py).
    """

    image: jax.Array
    text: jax.Array
    logit_scale: jax.Array
    negatives: jax.Array | None = None
    logit_bias: jax.Array | None = None
    image_residual: jax.Array | None = None
    text_residual: jax.Array | None = None
    texts: Mapping[str, jax.Array] = struct.field(default_factory=dict)
    image_tokens: jax.Array | None = None
    text_tokens: Tokens | None = None
    negative_tokens: Tokens | None = None
    mapped: Mapping[str, "Embeddings"] = struct.field(default_factory=dict)

    def toward(self, teacher: str = "teacher") -> "Embeddings":
        """What that teacher's embeddings are compared with: these, or their image in its space."""
        return self.mapped.get(teacher, self)
