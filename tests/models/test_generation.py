"""Drawing tokens, against numpy and against the distribution itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.generation import Restrictions, draw, restrict

draw, restrict = jax.jit(draw), jax.jit(restrict)


def kept_by_hand(logits, top_k, top_p):
    """Places that are kept: top_k likeliest, then the least of these that reach top_p."""
    order = np.argsort(-logits)[: top_k or len(logits)]
    probability = np.exp(logits[order] - logits[order].max())
    probability /= probability.sum()
    count = int(np.searchsorted(np.cumsum(probability), top_p - 1e-6)) + 1
    return set(order[:count])


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.7), (5, 0.5), (1, 0.1)])
def test_what_is_left_out(top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32) * 2
    got = restrict(logits, Restrictions(jnp.float32(1), jnp.int32(top_k), jnp.float32(top_p)))
    for row, before, after in zip(range(6), logits, np.asarray(got), strict=True):
        kept = kept_by_hand(before, top_k, top_p)
        assert set(np.flatnonzero(np.isfinite(after))) == kept, row
        np.testing.assert_array_equal(after[list(kept)], before[list(kept)])


def test_tokens_come_as_often_as_they_are_probable():
    n = 20_000
    logits = np.log([0.5, 0.3, 0.15, 0.05]).astype(np.float32)
    rows = jnp.tile(logits, (n, 1))
    keys = jax.vmap(jax.random.key)(jnp.arange(n))
    for temperature, top_k in [(1.0, 0), (2.0, 0), (1.0, 2)]:
        expected = np.exp(logits / temperature)
        expected[top_k or 4 :] = 0
        expected /= expected.sum()
        how = Restrictions(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(1))
        share = np.bincount(draw(rows, keys, jnp.int32(5), how), minlength=4) / n
        # Five standard errors.
        np.testing.assert_array_less(np.abs(share - expected), 5 * (0.25 / n) ** 0.5)
        assert not share[expected == 0].any()


def test_at_temperature_0_the_likeliest_is_taken():
    logits = np.random.default_rng(1).normal(size=(5, 9)).astype(np.float32)
    how = Restrictions(jnp.float32(0), jnp.int32(0), jnp.float32(1))
    keys = jax.vmap(jax.random.key)(jnp.arange(5))
    np.testing.assert_array_equal(draw(logits, keys, jnp.int32(0), how), logits.argmax(axis=1))
