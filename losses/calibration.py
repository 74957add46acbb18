"""FSC-CLIP's regularisation by hard negatives, of whole captions and of words (EMNLP 2024)."""

import jax
import jax.numpy as jnp

from losses.similarity import masked_mean
from models.embeddings import Tokens

_PRECISION = jax.lax.Precision.HIGHEST
_TINY = 1e-12  # below any spread of a map that says something


def selective(
    logits: jax.Array, valid: jax.Array, smoothing: float = 0.02, focus: float = 2.0
) -> jax.Array:
    """SCR: focal cross-entropy of samples' own captions with smoothed labels.

    sum_k y_k (1 - p_k)^focus (-log p_k), mean over the samples that have a negative, 0 if none has;
    y is smoothing / n for each of the n texts that there are, and 1 - smoothing more for the first.

    Args:
      logits: [N, 1 + K], of the caption and of its K hard negatives.
      valid: bool [N, K]; an absent negative keeps its place in the softmax with a logit of 0.

    Source: FSC-CLIP (EMNLP 2024), selective calibrated regularisation, as in its code.
    """
    present = jnp.concatenate([jnp.ones_like(valid[:, :1]), valid], axis=1)
    log_p = jax.nn.log_softmax(jnp.where(present, logits, 0.0), axis=1)
    count = jnp.sum(present, axis=1, keepdims=True)
    is_caption = jnp.arange(logits.shape[1])[None] == 0
    label = jnp.where(present, smoothing / count, 0.0) + jnp.where(is_caption, 1 - smoothing, 0.0)
    terms = label * (1 - jnp.exp(log_p)) ** focus * -log_p
    return masked_mean(jnp.sum(terms, axis=1), jnp.any(valid, axis=1))


def patch_text_map(patches: jax.Array, words: jax.Array) -> jax.Array:
    """Which patches each word of a text looks at: [N, M, L, P], of sum 1 over the patches.

    Products of word and patch, scaled to [0, 1] over the patches and divided by their sum; without
    gradient.

    Args:
      patches: [N, P, D]; words: [N, M, L, D]; both not normalised.
    """
    products = jnp.einsum("nmld,npd->nmlp", words, patches, precision=_PRECISION)
    products = jax.lax.stop_gradient(products)
    least, most = (f(products, axis=-1, keepdims=True) for f in (jnp.min, jnp.max))
    scaled = (products - least) / jnp.maximum(most - least, _TINY)
    return scaled / jnp.maximum(jnp.sum(scaled, axis=-1, keepdims=True), _TINY)


def local_logits(patches: jax.Array, texts: Tokens, logit_scale: jax.Array) -> jax.Array:
    """How well an image's patches match the words of its own texts: [N, M].

    logsumexp over the words, without the start token and with the end token, of logit_scale *
    cos(word, the patches that it looks at).

    Args:
      patches: [N, P, D], not normalised.
      texts: features [N, M, L, D], not normalised; those of sample i meet the patches of image i.
      logit_scale: [].

    Source: FSC-CLIP (EMNLP 2024), local hard negative loss, as in its code.
    """
    words, valid = texts.features[:, :, 1:], texts.valid[:, :, 1:]
    looks = patch_text_map(patches, words)
    seen = jnp.einsum("nmlp,npd->nmld", looks, patches, precision=_PRECISION)
    cosine = jnp.sum(_unit(words) * _unit(seen), axis=-1)
    return jax.nn.logsumexp(logit_scale * cosine, axis=-1, where=valid)


def _unit(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), _TINY**2))
