"""Softmax contrast over the global batch, of images, captions and further texts of a sample."""

import jax
import jax.numpy as jnp

from losses.similarity import MASKED, masked_mean, over_rows, paired, pairwise


def cross_entropies(rows, partners, others, logit_scale, valid=None) -> jax.Array:
    """Cross-entropy of each row over its partner and all else: [N].

    Args:
      rows: [N, D]; partners: [N, D], of the rows in turn.
      others: [M, D], with the partners among them.
      valid: bool [1, M], which of them count; None for all.
    """

    def log_sum(similarities):
        logits = logit_scale * similarities
        return jax.nn.logsumexp(logits if valid is None else jnp.where(valid, logits, MASKED), 1)

    return over_rows(log_sum, rows, others) - logit_scale * paired(rows, partners)


def info_nce(image: jax.Array, text: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Symmetric InfoNCE: mean of image-to-text and text-to-image cross-entropy.

    Args:
      image, text: [N, D], unit norm; row i of one belongs to row i of the other.
      logit_scale: [], the multiplier of cosine similarities.

    Source: CLIP (arXiv 2103.00020), figure 3.
    """
    to_text = cross_entropies(image, text, text, logit_scale)
    to_image = cross_entropies(text, image, image, logit_scale)
    return jnp.mean(to_text + to_image) / 2


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
    texts = jnp.concatenate([text, negatives.reshape(-1, negatives.shape[-1])])
    counts = jnp.concatenate([jnp.ones(len(text), bool), valid.reshape(-1)])[None]
    to_text = cross_entropies(image, text, texts, logit_scale, counts)
    to_image = cross_entropies(text, image, image, logit_scale)
    return jnp.mean(to_text + to_image) / 2


def text_alignment(
    other: jax.Array, text: jax.Array, valid: jax.Array, logit_scale: jax.Array
) -> jax.Array:
    """Cross-entropy of each other caption of an image over the captions of the batch.

    Args:
      other: [N, D], embeddings of another caption of each image, unit norm.
      text: [N, D], the captions, unit norm.
      valid: bool [N], which images have another caption; the mean is over these, 0 if none has.
      logit_scale: [].

    Source: READ-CLIP (NeurIPS 2025), sentence alignment; one direction.
    """
    return masked_mean(cross_entropies(other, text, text, logit_scale), valid)


def unit_contrast(
    image: jax.Array,
    unit: jax.Array,
    foil: jax.Array,
    valid: jax.Array,
    logit_scale: jax.Array,
) -> jax.Array:
    """InfoNCE of images and units of their captions, each image with its own foil as one more text.

    A sample without a unit leaves the batch: neither its row nor its column counts.

    Args:
      image, unit: [N, D], unit norm; unit i is a part of what image i shows.
      foil: [N, D], the same unit with one part changed.
      valid: bool [N]; the means are over the samples with a unit, 0 if there is none.
      logit_scale: [].

    Source: CS-CLIP (2026), unit loss.
    """
    logits = logit_scale * pairwise(image, unit)
    logits = jnp.where(valid[:, None] & valid[None, :], logits, MASKED)
    own_foil = logit_scale * paired(image, foil)[:, None]
    image_rows = jax.nn.logsumexp(jnp.concatenate([logits, own_foil], axis=1), axis=1)
    unit_rows = jax.nn.logsumexp(logits, axis=0)
    return masked_mean((image_rows + unit_rows) / 2 - jnp.diagonal(logits), valid)
