"""A linear model with CLIP's interface: fast enough to train in a test."""

import jax
import jax.numpy as jnp
import numpy as np

from models.embeddings import Embeddings


def init_params(key, width=6, embed_dim=4):
    keys = jax.random.split(key, 2)
    return {
        "image": jax.random.normal(keys[0], (width, embed_dim)),
        "text": jax.random.normal(keys[1], (width, embed_dim)),
        "logit_scale": jnp.float32(1.0),
    }


def apply(params, batch):
    def embed(x, w):
        x = x @ w
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return Embeddings(
        image=embed(batch["image"], params["image"]),
        text=embed(batch["text"], params["text"]),
        logit_scale=jnp.exp(params["logit_scale"]),
    )


def batches(seed=0, size=8, width=6):
    """Endless batches, a pure function of the seed."""
    rng = np.random.default_rng(seed)
    while True:
        image = rng.normal(size=(size, width)).astype(np.float32)
        text = image + 0.1 * rng.normal(size=image.shape).astype(np.float32)
        yield {"image": image, "text": text, "truncated": np.array([True] + [False] * (size - 1))}
