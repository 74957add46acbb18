"""A fork: NegCLIP plus FSC-CLIP's local loss, terms and all in one file."""

import jax
import jax.numpy as jnp

from losses import contrastive
from methods.base import WITH_NEGATIVES, Method


def make(local_weight: float = 0.2, smoothing: float = 0.02) -> Method:
    """NegCLIP + the calibrated contrast of patches with the words of a sample's own texts."""

    def loss(student, teacher, batch, carry):
        del teacher
        valid = batch["negatives_valid"]
        base = contrastive.negclip(
            student.image, student.text, student.negatives, valid, student.logit_scale
        )
        texts = jax.tree.map(
            lambda caption, negatives: jnp.concatenate([caption[:, None], negatives], axis=1),
            student.text_tokens,
            student.negative_tokens,
        )
        logits = student.logit_scale * matches(student.image_tokens, texts)
        local = calibrated(logits, valid, smoothing)
        return base + local_weight * local, {"negclip": base, "local": local}, carry

    return Method(loss, batch_fields=WITH_NEGATIVES, needs=("image_tokens", "text_tokens"))


def matches(patches, texts):
    """Mean over the words of a text of cos(word, the patches it looks at): [N, 1 + K]."""
    words, is_word = texts.features[:, :, 1:], texts.valid[:, :, 1:]
    look = jax.lax.stop_gradient(jnp.einsum("nkld,npd->nklp", words, patches))
    seen = jnp.einsum("nklp,npd->nkld", jax.nn.softmax(look, axis=-1), patches)
    norms = jnp.linalg.norm(words, axis=-1) * jnp.linalg.norm(seen, axis=-1)
    cosine = jnp.sum(words * seen, axis=-1) / jnp.maximum(norms, 1e-6)
    return jnp.sum(jnp.where(is_word, cosine, 0), axis=-1) / jnp.sum(is_word, axis=-1)


def calibrated(logits, valid, smoothing):
    """Focal cross-entropy with smoothed labels, of the samples that have a negative."""
    exists = jnp.concatenate([jnp.ones_like(valid[:, :1]), valid], axis=1)
    log_p = jax.nn.log_softmax(jnp.where(exists, logits, 0.0), axis=1)
    label = jnp.where(exists, smoothing / exists.sum(axis=1, keepdims=True), 0.0)
    label = label.at[:, 0].add(1 - smoothing)
    rows = jnp.sum(label * (1 - jnp.exp(log_p)) ** 2 * -log_p, axis=1)
    counts = valid.any(axis=1)
    return jnp.sum(jnp.where(counts, rows, 0)) / jnp.maximum(counts.sum(), 1)
