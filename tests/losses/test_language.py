"""Losses of language models: closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import language
from methods import base

pytestmark = pytest.mark.usefixtures("strict_ranks")


def test_dpo_in_closed_form():
    zero = jnp.zeros(3)
    for beta in (0.1, 5.0):
        np.testing.assert_allclose(language.dpo(zero, zero, beta), math.log(2), rtol=1e-6)
    two, less = jnp.full(3, 2.0), jnp.full(3, -1.0)
    np.testing.assert_allclose(language.dpo(two, less, 0.1), 0.554355, atol=1e-6)
    # Swapped, the margin has the other sign: log(1 + e^m) - log(1 + e^-m) is m.
    swapped = language.dpo(less, two, 0.1)
    np.testing.assert_allclose(swapped - language.dpo(two, less, 0.1), 0.3, rtol=1e-5)


def test_the_mean_is_over_tokens_and_not_over_texts():
    values = jnp.array([[0.0, -1.0, -2.0, -9.0], [0.0, -4.0, -9.0, -9.0]])
    completion = jnp.array([[False, True, True, False], [False, True, False, False]])
    np.testing.assert_allclose(language.negative_log_likelihood(values, completion), 7 / 3)
    sums = language.completion_log_probability(values, completion)
    np.testing.assert_allclose(sums, [-3, -4])
    nothing = jnp.zeros_like(completion)
    assert language.negative_log_likelihood(values, nothing) == 0


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_prompts_and_padding_have_no_effect(name):
    method, rng = base.load(name, {}), np.random.default_rng(0)
    shape = (4, 2, 6)
    completion = rng.random(shape) < 0.5
    batch = {"completion": completion, "preferred": np.tile([True, False], (4, 1))}
    student, teacher, other = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(3))

    def loss(student):
        return method.loss(student, teacher, batch, ())[0]

    changed = jnp.where(completion, student, other)
    np.testing.assert_array_equal(loss(student), loss(changed))
    gradient = jax.grad(loss)(student)
    assert not np.asarray(gradient)[~completion].any() and np.asarray(gradient).any()


def test_of_preferences_supervised_tuning_learns_the_chosen():
    method = base.load("sft", {})
    values = jnp.arange(8.0).reshape(2, 2, 2)
    batch = {"completion": np.ones((2, 2, 2), bool), "preferred": np.array([[True, False]] * 2)}
    np.testing.assert_allclose(method.loss(values, None, batch, ())[0], -(0 + 1 + 4 + 5) / 4)
