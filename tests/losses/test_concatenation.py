"""CLIC's terms against explicit loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import concatenation

pytestmark = pytest.mark.usefixtures("strict_ranks")

N, J, D, SCALE = 5, 4, 6, 7.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    image, texts, negative = (unit(rng.normal(size=s)) for s in ((N, D), (N, J, D), (N, D)))
    valid = np.ones((N, J), bool)
    valid[1:3, 2:] = False
    return image, texts, valid, negative, np.array([True, True, False, True, True])


def cross_entropy(right, wrong):
    return np.log(np.exp([right, *wrong]).sum()) - right


def contrast(image, texts, valid):
    terms = []
    for j in range(J):
        kept = np.flatnonzero(valid[:, j])
        for i in kept:
            right, others = SCALE * image[i] @ texts[i, j], [k for k in kept if k != i]
            to_text = cross_entropy(right, [SCALE * image[i] @ texts[k, j] for k in others])
            to_image = cross_entropy(right, [SCALE * image[k] @ texts[i, j] for k in others])
            terms.append((to_text + to_image) / 2)
    return np.mean(terms)


def exchanged(image, texts, valid, negative, has_negative):
    return np.mean(
        [
            cross_entropy(SCALE * image[i] @ texts[i, j], [SCALE * image[i] @ negative[i]])
            for i, j in np.argwhere(valid)
            if has_negative[i]
        ]
    )


def as_float32(*arrays):
    return [jnp.asarray(x, bool if x.dtype == bool else jnp.float32) for x in arrays]


def test_contrast_equals_the_oracle(sample):
    image, texts, valid, *_ = sample
    value = concatenation.contrast(*as_float32(image, texts, valid), SCALE)
    np.testing.assert_allclose(value, contrast(image, texts, valid), rtol=2e-6)


def test_exchanged_equals_the_oracle(sample):
    image, texts, valid, negative, has = sample
    value = concatenation.exchanged(*as_float32(image, texts, valid, negative, has), SCALE)
    np.testing.assert_allclose(value, exchanged(*sample), rtol=2e-6)


def test_order_invariance_in_closed_form(sample):
    text = as_float32(sample[1])[0]
    value = concatenation.order_invariance(text[:, 0], text[:, 1], jnp.arange(N) < 3)
    cosine = np.sum(sample[1][:3, 0] * sample[1][:3, 1], axis=-1)
    np.testing.assert_allclose(value, np.mean(2 - 2 * cosine), rtol=1e-5)


def test_gradients_are_finite_and_none_goes_to_what_is_not_there(sample):
    image, texts, valid, negative, has = as_float32(*sample)

    def loss(texts, negative):
        return concatenation.contrast(image, texts, valid, SCALE) + concatenation.exchanged(
            image, texts, valid, negative, has, SCALE
        )

    for_texts, for_negative = jax.grad(loss, argnums=(0, 1))(texts, negative)
    assert np.isfinite(for_texts).all() and np.isfinite(for_negative).all()
    assert not np.any(for_texts[~np.asarray(valid)]) and not np.any(for_negative[2])
