"""Parameters of which a part learns, run by the towers: what is computed, and what is not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from models import parameters
from models.clip import CLIP, CLIPConfig, embedder, init_params
from models.transformer import TextConfig, VisionConfig
from training.trainable import choose_trainable

LAYERS, WIDTH, PATCHES, LENGTH, N = 3, 32, 4, 4, 8
BATCH = {
    "image": np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8),
    "text": np.tile(np.array([[1, 2, 3, 49], [4, 5, 49, 0]], np.int32), (N // 2, 1)),
}


@functools.cache
def small():
    tower = dict(width=WIDTH, layers=LAYERS, heads=2, mlp_width=2 * WIDTH)
    model = CLIP(
        CLIPConfig(
            embed_dim=16,
            vision=VisionConfig(**tower, patch_size=4, image_size=8),
            text=TextConfig(**tower, vocab_size=50, eos_token_id=49, context_length=LENGTH),
        )
    )
    return model, jax.jit(functools.partial(init_params, model))(jax.random.key(0))


def split(**options):
    model, boxed = small()
    trainable = choose_trainable(boxed, **options)
    compute = dataclasses.replace(model.compute, frozen_layers=trainable.frozen_layers)
    return model.clone(compute=compute), *trainable.split(meta.unbox(boxed), jax.random.key(1))


def loss_of(model):
    embed = embedder(model)

    def loss(params):
        out = embed(params, BATCH)
        return jnp.sum((out.image - out.text) ** 2) + out.logit_scale

    return loss


def flops(function, *arguments):
    # A loop over layers would be counted as one layer.
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def unrolled(model):
    return model.clone(compute=dataclasses.replace(model.compute, unroll_layers=True))


@pytest.mark.parametrize("inside", [False, True])
def test_a_product_of_low_rank_is_run_as_the_matrix_it_stands_for(inside):
    """Values and gradients, with factors that are not zero."""
    model, learned, frozen = split(rank=3, alpha=6.0)
    learned = jax.tree.map(lambda x: x + 0.02, learned)
    if inside:  # also the rows of a table, which no dense layer multiplies by
        where = ("*token_embedding*", "*patch_embedding/kernel", "*/projection/kernel")
        model, learned, frozen = split(rank=3, where=where)
        learned = jax.tree.map(lambda x: x + 0.02, learned)
    loss = loss_of(model)

    def lazy(learned):
        return loss(parameters.join(learned, frozen))

    def whole(learned):
        return loss(parameters.merge(learned, frozen))

    values = [jax.jit(jax.value_and_grad(f))(learned) for f in (lazy, whole)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *values)


def test_no_gradient_of_a_matrix_is_computed_for_a_product_of_low_rank():
    model, learned, frozen = split(rank=1)
    loss = loss_of(unrolled(model))
    params = parameters.merge(learned, frozen)
    part = flops(jax.grad(lambda learned: loss(parameters.join(learned, frozen))), learned)
    saved = flops(jax.grad(loss), params) - part
    # Every kernel of the blocks, and what is before and after them.
    tokens = {"vision": N * (PATCHES + 1), "text": N * LENGTH}
    products = 0
    for name, count in tokens.items():
        products += count * sum(
            leaf.size for leaf in jax.tree.leaves(params[name]["transformer"]) if leaf.ndim > 2
        )
    assert 0.85 * 2 * products < saved < 1.1 * 2 * products


@pytest.mark.parametrize("unroll", [False, True])
def test_the_last_layers_learn_what_they_do_in_the_whole(unroll):
    learn = ("text/*blocks/*[-1:]", "text/ln_post/*", "text/projection/*")
    model, learned, frozen = split(learn=learn)
    model = unrolled(model) if unroll else model
    loss = loss_of(model)
    value, grads = jax.jit(
        jax.value_and_grad(lambda learned: loss(parameters.join(learned, frozen)))
    )(learned)
    whole_value, whole = jax.jit(jax.value_and_grad(loss_of(small()[0])))(meta.unbox(small()[1]))
    np.testing.assert_allclose(value, whole_value, rtol=1e-5)
    trainable = choose_trainable(small()[1], learn)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        grads,
        trainable.moving(whole),
    )


def test_nothing_below_the_last_layers_has_a_backward_pass():
    model, learned, frozen = split(learn=("text/*blocks/*[-1:]",))
    loss, params = loss_of(unrolled(model)), parameters.merge(learned, frozen)
    forward = flops(lambda: loss(params))
    part = flops(jax.grad(lambda learned: loss(parameters.join(learned, frozen))), learned)
    blind = loss_of(unrolled(small()[0]))  # does not know what learns, and is as exact
    full = flops(jax.grad(lambda learned: blind(parameters.join(learned, frozen))), learned)
    tower = params["text"]["transformer"]["blocks"]
    layer = N * LENGTH * sum(leaf[0].size for leaf in jax.tree.leaves(tower) if leaf.ndim > 2)
    # Twice the products of the forward pass, for matrices and for activations.
    assert part - forward < 1.4 * 4 * layer
    assert full - forward > 2 * 4 * layer


@pytest.mark.parametrize("name", ["image/*", "text/*"])
def test_a_tower_that_does_not_learn_is_not_gone_back_through(name):
    name = name.replace("image", "vision")
    model, learned, frozen = split(learn=(name,))
    loss = loss_of(unrolled(model))
    whole = flops(jax.grad(loss), parameters.merge(learned, frozen))
    part = flops(jax.grad(lambda learned: loss(parameters.join(learned, frozen))), learned)
    forward = flops(lambda: loss(parameters.merge(learned, frozen)))
    other = split(learn=("text/*" if name == "vision/*" else "vision/*",))
    rest = flops(jax.grad(lambda x: loss(parameters.join(x, other[2]))), other[1])
    np.testing.assert_allclose(part + rest - forward, whole, rtol=0.02)


@pytest.mark.parametrize("shape, inputs", [((3, 32, 64), (1,)), ((3, 4, 8, 32), (1, 2))])
def test_whole_numbers_are_as_close_as_qwix_has_them(shape, inputs):
    """Another implementation of the same: absolute maxima, a scale for each layer and output."""
    qwix = pytest.importorskip("qwix")
    kernel = jax.random.normal(jax.random.key(0), shape) * jnp.arange(1.0, 1 + shape[-1])
    outputs = [axis for axis in range(len(shape)) if axis not in inputs]
    theirs = qwix.quantize(kernel, qtype=jnp.int8, channelwise_axes=outputs)
    ours = parameters.quantize(kernel, stacked=1)
    values, scale = ours[parameters.INT8], ours[parameters.INT8_SCALE]
    assert (values.shape, scale.shape) == (theirs.qvalue.shape, theirs.scale.shape)
    assert values.dtype == theirs.qvalue.dtype == jnp.int8
    # Theirs divides by 127.5 and cuts the largest, ours by 127.
    np.testing.assert_allclose(scale, theirs.scale, rtol=5e-3)
    assert np.abs(np.asarray(values, int) - np.asarray(theirs.qvalue, int)).max() <= 1

    def error(approximation):
        return np.abs(approximation - kernel).max(axis=inputs)

    assert (error(values * scale) <= 1.01 * error(qwix.dequantize(theirs))).mean() > 0.9
    assert (error(values * scale) <= np.squeeze(scale, inputs) / 2 * 1.001).all()
