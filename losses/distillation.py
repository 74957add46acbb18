"""Self-distillation: keep the student's embeddings near the teacher's."""

import jax
import jax.numpy as jnp

from errors import UserError
from models.embeddings import Embeddings


def squared_error(
    student: Embeddings, teacher: Embeddings, valid: jax.Array | None, reduction: str = "sum"
) -> jax.Array:
    """Squared error of unit-norm image, caption and hard negative embeddings to the teacher's.

    Args:
      student, teacher: of the same global batch, with negatives [N, K, D] or without.
      valid: bool [N, K], False where a slot holds no negative; None for a batch without.
      reduction: 'sum' over the global batch (so it grows with it), or 'mean': the mean over image
        elements plus the mean over text elements, captions and negatives together.

    Raises:
      UserError: an unknown reduction.

    Source: DeGLA (arXiv 2504.16801), self-distillation; sum-reduced, as in its code.
    """
    if reduction not in ("sum", "mean"):
        raise UserError(f"unknown distillation reduction {reduction!r}; give 'sum' or 'mean'")
    image = jnp.sum(jnp.square(student.image - teacher.image))
    text = jnp.sum(jnp.square(student.text - teacher.text))
    num_texts = len(student.text)
    if valid is not None:
        per_negative = jnp.sum(jnp.square(student.negatives - teacher.negatives), axis=-1)
        text = text + jnp.sum(jnp.where(valid, per_negative, 0))
        num_texts = num_texts + jnp.sum(valid)
    if reduction == "sum":
        return image + text
    return image / student.image.size + text / (num_texts * student.text.shape[-1])


def cosine(features: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of 1 - cos between features and unit-norm targets, both [..., D].

    Source: FROSTER (arXiv 2402.03241), residual feature distillation; features after the residual
    head need not be of unit norm.
    """
    dot = jnp.sum(features * target, axis=-1)
    return jnp.mean(1 - dot / jnp.linalg.norm(features, axis=-1))
