"""Contrasts over the whole batch: in stretches of rows, and on a mesh without moving logits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import contrastive, sigmoid, similarity
from training.mesh import batch_sharding, make_mesh

N, K, D = 48, 3, 16


def arguments(n=N):
    rng = np.random.default_rng(0)

    def unit(*shape):
        x = rng.normal(size=(*shape, D)).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    valid = rng.random((n, K)) < 0.7
    return unit(n), unit(n), unit(n, K), valid, jnp.float32(20.0)


LOSSES = {
    "info_nce": lambda i, t, n, v, s: contrastive.info_nce(i, t, s),
    "negclip": contrastive.negclip,
    "sigmoid": lambda i, t, n, v, s: sigmoid.sigmoid_contrast(i, t, s, -s / 2),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("most", [1, N, 5 * N, 10**9])
def test_in_stretches_value_and_gradient_are_the_same(loss, most, monkeypatch):
    def value_and_grad():
        return jax.value_and_grad(loss, argnums=(0, 1, 2, 4))(*arguments())

    whole = value_and_grad()
    monkeypatch.setattr(similarity, "MOST_LOGITS", max(most, N * (1 + K)))
    parts = value_and_grad()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), parts, whole)


def test_memory_does_not_grow_with_all_pairs(monkeypatch):
    def temporaries(n, most):
        monkeypatch.setattr(similarity, "MOST_LOGITS", most)
        gradient = jax.jit(jax.grad(contrastive.negclip, argnums=(0, 1, 2)))
        return gradient.lower(*arguments(n)).compile().memory_analysis().temp_size_in_bytes

    most = 512 * 1024
    plain, parts = temporaries(1024, 10**9), temporaries(1024, most)
    assert plain > 1024 * 1024 * (1 + K) * 4 and parts < 6 * most * 4
    assert temporaries(2048, most) < 1.5 * parts


def test_only_embeddings_travel():
    """On eight devices: gathers and sums of embeddings, and nothing that is as large as logits."""
    mesh = make_mesh(data=4, fsdp=2)
    n = 512
    image, text, negatives, valid, scale = arguments(n)
    spread = [jax.device_put(x, batch_sharding(mesh)) for x in (image, text, negatives, valid)]

    def gradient(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(contrastive.negclip, argnums=(0, 1, 2))(*args, scale)

    text_of_program = jax.jit(gradient).lower(*spread).compile().as_text()
    moved = re.findall(
        r"= \(?(\w+)\[([\d,]*)\].* (all-\w+|reduce-scatter|collective-\w+)\(", text_of_program
    )
    sizes = {
        (kind, np.prod([int(s) for s in shape.split(",") if s], dtype=int))
        for _, shape, kind in moved
    }
    assert sizes and not any(kind == "all-to-all" for kind, _ in sizes)
    assert max(size for _, size in sizes) <= n * (1 + K) * D
    whole = jax.value_and_grad(contrastive.negclip, argnums=(0, 1, 2))(*arguments(n))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(gradient)(*spread),
        whole,
    )
