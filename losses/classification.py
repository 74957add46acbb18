"""Cross-entropy over the classes of a video, whose texts are its weights."""

import jax
import jax.numpy as jnp
import optax


def frame_logits(image: jax.Array, text: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Logits of clips [N, C], averaged over their frames: image [N, T, D], text [C, D]."""
    return logit_scale * jnp.einsum("ntd,cd->nc", image, text) / image.shape[1]


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits [N, C] against label int32 [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
