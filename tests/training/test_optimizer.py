"""AdamW against its definition in numpy, the schedule against open_clip's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from training.optimizer import decay_mask, make_optimizer, warmup_cosine

SETTINGS = dict(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1)


def open_clip_cosine(step, learning_rate, warmup, total):
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) * learning_rate


@pytest.mark.parametrize("warmup", [0, 1, 2, 7])
def test_schedule_is_open_clips(warmup):
    schedule = warmup_cosine(3e-4, warmup, 40)
    wanted = [open_clip_cosine(step, 3e-4, warmup, 40) for step in range(40)]
    np.testing.assert_allclose(
        [schedule(step) for step in range(40)], wanted, rtol=1e-5, atol=1e-10
    )


def test_other_rates_at_the_ends():
    schedule = warmup_cosine(1e-6, 20, 100, init_learning_rate=1e-7, end_learning_rate=1e-8)
    rates = np.array([schedule(step) for step in range(101)])
    np.testing.assert_allclose(rates[:20], np.linspace(1e-7, 1e-6, 20), rtol=1e-5)
    np.testing.assert_allclose(rates[[20, 60, 100]], [1e-6, (1e-6 + 1e-8) / 2, 1e-8], rtol=1e-5)


@pytest.mark.parametrize("name", ["init_learning_rate", "end_learning_rate"])
@pytest.mark.parametrize("rate", [-1e-8, 2e-6])
def test_no_other_rate_lies_above_the_peak(name, rate):
    with pytest.raises(UserError, match=rf"{name}={rate:g} must lie in \[0, learning_rate=1e-06\]"):
        warmup_cosine(1e-6, 2, 10, **{name: rate})


@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_warmup_must_be_shorter_than_the_run(warmup):
    with pytest.raises(ValueError, match="warmup_steps"):
        warmup_cosine(1e-3, warmup, 10)


def test_warmup_in_epochs_is_so_many_steps():
    options = dict(learning_rate=3e-4, total_steps=40, grad_clip_norm=0.0, **SETTINGS)
    by_epochs, _ = make_optimizer(warmup_steps=50, warmup_epochs=0.2, steps_per_epoch=51, **options)
    by_steps, _ = make_optimizer(warmup_steps=10, **options)
    assert [by_epochs(step) for step in range(40)] == [by_steps(step) for step in range(40)]


def test_decay_is_on_matrices_only():
    params = {
        "logit_scale": jnp.zeros(()),
        "class_embedding": jnp.zeros(4),
        "position_embedding": jnp.zeros((3, 4)),
        "ln": {"scale": jnp.zeros((2, 4)), "bias": jnp.zeros((2, 4))},
        "qkv": {"kernel": jnp.zeros((2, 4, 3, 2, 2)), "bias": jnp.zeros((2, 3, 2, 2))},
    }
    assert decay_mask(params) == {
        "logit_scale": False,
        "class_embedding": False,
        "position_embedding": True,
        "ln": {"scale": False, "bias": False},
        "qkv": {"kernel": True, "bias": False},
    }


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_adamw_is_its_definition(clip):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    _, tx = make_optimizer(
        learning_rate=1e-2, warmup_steps=2, total_steps=10, grad_clip_norm=clip, **SETTINGS
    )
    ours = jax.tree.map(jnp.float32, params)
    state = tx.init(ours)
    mean = {name: 0.0 for name in params}
    square = dict(mean)
    for step in range(5):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        updates, state = tx.update(jax.tree.map(jnp.float32, grads), state, ours)
        ours = jax.tree.map(lambda p, u: p + u, ours, updates)

        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        shrink = min(1.0, clip / norm) if clip else 1.0
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            g = grads[name] * shrink
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.98 * square[name] + 0.02 * g**2
            unbiased = mean[name] / (1 - 0.9 ** (step + 1))
            spread = np.sqrt(square[name] / (1 - 0.98 ** (step + 1)))
            change = unbiased / (spread + 1e-6) + decay * params[name]
            params[name] = params[name] - open_clip_cosine(step, 1e-2, 2, 10) * change
    for name in params:
        np.testing.assert_allclose(ours[name], params[name], rtol=1e-5)


def trained(mu_dtype, steps=200):
    """What 200 steps on noisy gradients leave of a matrix and its optimizer's state."""
    rng = np.random.default_rng(0)
    _, tx = make_optimizer(
        learning_rate=1e-2,
        warmup_steps=2,
        total_steps=steps,
        grad_clip_norm=1.0,
        mu_dtype=mu_dtype,
        **SETTINGS,
    )
    params = {"kernel": jnp.float32(rng.normal(size=(8, 8)))}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(steps):
        grads = {"kernel": jnp.float32(0.1 + rng.normal(size=(8, 8)))}
        updates, state = update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params["kernel"], state


def test_a_first_moment_of_16_bits_goes_the_same_way():
    start = np.random.default_rng(0).normal(size=(8, 8))
    whole, _ = trained("float32")
    half, state = trained("bfloat16")
    moments = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert moments == [jnp.bfloat16, jnp.float32]
    # Rounding to 8 bits, of gradients that are mostly noise.
    way = np.linalg.norm(whole - start)
    assert 0 < np.linalg.norm(whole - half) < 0.02 * way


def test_a_second_moment_of_16_bits_would_never_fall():
    """Why there is none: gradients of 1, then of a half, and b2 as PyTorch has it."""
    second = {dtype: jnp.ones((), dtype) for dtype in ("float32", "bfloat16")}
    for dtype, value in second.items():
        for _ in range(3000):
            value = (0.999 * value.astype(jnp.float32) + 0.001 * 0.25).astype(dtype)
        second[dtype] = float(value)
    assert second["float32"] < 0.3 and second["bfloat16"] == 1.0


def test_moments_of_another_dtype_are_named():
    with pytest.raises(ValueError, match="mu_dtype is 'int8'; there are: float32, bfloat16"):
        trained("int8")
