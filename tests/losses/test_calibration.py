"""FSC-CLIP's local logits against explicit loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import calibration
from models.embeddings import Tokens

pytestmark = pytest.mark.usefixtures("strict_ranks")

N, M, L, P, D, SCALE = 3, 2, 5, 4, 6, 4.0


def sample(seed=0):
    rng = np.random.default_rng(seed)
    valid = np.arange(L) <= rng.integers(1, L, (N, M, 1))  # start, words, end
    return rng.normal(size=(N, P, D)), rng.normal(size=(N, M, L, D)), valid


def unit(x):
    return x / np.sqrt((x**2).sum())


def attention_of(patches, word):
    products = patches @ word
    scaled = (products - products.min()) / (products.max() - products.min())
    return scaled / scaled.sum()


def oracle(patches, words, valid, attention=None):
    """The attention may be given: it carries no gradient."""
    logits = np.zeros((N, M))
    for i, m in np.ndindex(N, M):
        terms = []
        for t in range(1, L):
            if valid[i, m, t]:
                if attention is None:
                    weights = attention_of(patches[i], words[i, m, t])
                else:
                    weights = attention[i, m, t]
                seen = sum(weights[p] * patches[i, p] for p in range(P))
                terms.append(np.exp(SCALE * (unit(words[i, m, t]) @ unit(seen))))
        logits[i, m] = np.log(sum(terms))
    return logits


def test_local_logits_equal_the_oracle():
    patches, words, valid = sample()
    tokens = Tokens(jnp.asarray(words, jnp.float32), jnp.asarray(valid))
    logits = calibration.local_logits(jnp.asarray(patches, jnp.float32), tokens, SCALE)
    assert logits.dtype == jnp.float32 and logits.shape == (N, M)
    np.testing.assert_allclose(logits, oracle(patches, words, valid), rtol=1e-5)


def test_no_gradient_goes_through_the_map():
    patches, words, valid = sample()
    rng = np.random.default_rng(1)
    weight, *direction = (rng.normal(size=shape) for shape in ((N, M), patches.shape, words.shape))
    attention = np.zeros((N, M, L, P))
    for i, m, t in np.ndindex(N, M, L):
        attention[i, m, t] = attention_of(patches[i], words[i, m, t])

    def along(t):
        moved = (x + t * d for x, d in zip((patches, words), direction, strict=True))
        return np.sum(weight * oracle(*moved, valid, attention))

    def loss(patches, words):
        return jnp.sum(weight * calibration.local_logits(patches, Tokens(words, valid), SCALE))

    with jax.enable_x64(True):
        grads = jax.device_get(
            jax.grad(loss, argnums=(0, 1))(jnp.asarray(patches), jnp.asarray(words))
        )
    slope = sum(np.sum(g * d) for g, d in zip(grads, direction, strict=True))
    np.testing.assert_allclose(slope, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-6)


def test_start_and_padding_have_no_influence():
    patches, words, valid = sample()
    keep = valid & (np.arange(L) > 0)
    other = np.where(keep[..., None], words, sample(9)[1])
    one, two = (
        calibration.local_logits(
            jnp.asarray(patches, jnp.float32), Tokens(jnp.float32(x), valid), SCALE
        )
        for x in (words, other)
    )
    np.testing.assert_array_equal(one, two)


def test_a_map_that_says_nothing_gives_finite_logits_and_gradients():
    patches = jnp.ones((N, P, D))
    tokens = Tokens(jnp.ones((N, M, L, D)), jnp.ones((N, M, L), bool))

    def loss(x):
        return jnp.sum(calibration.local_logits(x, tokens, SCALE))

    value, grad = jax.value_and_grad(loss)(patches)
    assert np.isfinite(value) and np.isfinite(grad).all()
