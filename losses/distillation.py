"""Distillation: the student's embeddings, or how they relate, near the teacher's."""

import jax
import jax.numpy as jnp

from errors import UserError
from losses.contrastive import cross_entropies
from losses.similarity import pairwise
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


def interactive(student: Embeddings, teacher: Embeddings, logit_scale: jax.Array) -> jax.Array:
    """InfoNCE of the student's images against the teacher's captions and the reverse, their mean.

    Args:
      student, teacher: of the same global batch and of one size.
      logit_scale: [], the student's.

    Source: CLIP-KD (arXiv 2307.12732), interactive contrastive learning.
    """
    images = cross_entropies(student.image, teacher.text, teacher.text, logit_scale)
    texts = cross_entropies(student.text, teacher.image, teacher.image, logit_scale)
    return jnp.mean(images + texts) / 2


def relational(student: Embeddings, teacher: Embeddings) -> jax.Array:
    """KL(teacher || student) of each image's softmax over captions, and the reverse: their mean.

    Args:
      student, teacher: of the same global batch, each with its own size and logit_scale.

    Source: CLIP-KD (arXiv 2307.12732), contrastive relational distillation.
    """
    ours, theirs = (e.logit_scale * pairwise(e.image, e.text) for e in (student, teacher))
    return (_divergence(ours, theirs) + _divergence(ours.T, theirs.T)) / 2


def _divergence(logits, target):
    """Mean over the rows of KL(softmax(target) || softmax(logits))."""
    log_p, log_q = jax.nn.log_softmax(target, axis=1), jax.nn.log_softmax(logits, axis=1)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1))
