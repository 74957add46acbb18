"""The loss of video classes and the cosine distillation, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses.classification import cross_entropy, frame_logits
from losses.distillation import cosine

N, T, C, D = 3, 4, 5, 6

pytestmark = pytest.mark.usefixtures("strict_ranks")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, T, D)), rng.normal(size=(C, D)), np.array([0, 4, 2])


def test_logits_are_the_mean_over_frames(arrays):
    image, text, _ = arrays
    expected = [[np.mean([7 * f @ c for f in clip]) for c in text] for clip in image]
    found = frame_logits(jnp.float32(image), jnp.float32(text), jnp.float32(7))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy(arrays):
    logits, labels = arrays[0][:, 0], arrays[2]
    expected = np.mean(
        [np.log(np.exp(r).sum()) - r[i] for r, i in zip(logits, labels, strict=True)]
    )
    found = cross_entropy(jnp.float32(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    uniform = cross_entropy(jnp.zeros((N, C)), jnp.asarray(labels))
    np.testing.assert_allclose(uniform, np.log(C), rtol=1e-6)


def test_cosine(arrays):
    features = arrays[0]
    target = np.random.default_rng(1).normal(size=features.shape)
    target /= np.linalg.norm(target, axis=-1, keepdims=True)
    expected = np.mean(
        [
            1 - f @ t / np.linalg.norm(f)
            for f, t in zip(*(x.reshape(-1, D) for x in (features, target)), strict=True)
        ]
    )
    np.testing.assert_allclose(
        cosine(jnp.float32(features), jnp.float32(target)), expected, rtol=1e-5
    )
    np.testing.assert_allclose(cosine(5 * jnp.float32(target), jnp.float32(target)), 0, atol=1e-6)
    assert np.isfinite(jax.grad(cosine)(jnp.float32(target), jnp.float32(target))).all()
