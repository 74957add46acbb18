"""FROSTER is the sum of its terms, with and without heads and teacher."""

import jax.numpy as jnp
import numpy as np
import pytest

from methods import base
from models.embeddings import Embeddings

N, T, C, D = 4, 3, 5, 6
BATCH = {"label": jnp.array([0, 4, 2, 2])}


def embeddings(seed, heads):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        x = rng.normal(size=shape)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    residual = (2 * unit(N, T, D), 3 * unit(C, D)) if heads else (None, None)
    image, text = unit(N, T, D), unit(C, D)
    return Embeddings(
        image, text, jnp.float32(10), image_residual=residual[0], text_residual=residual[1]
    )


@pytest.mark.parametrize("heads", [True, False])
def test_it_is_the_weighted_sum_of_its_terms(heads):
    student, teacher = embeddings(0, heads), embeddings(1, False)
    total, metrics, _ = base.load("froster", {}).loss(student, teacher, BATCH, ())
    distill = metrics["distill_image"] + metrics["distill_text"]
    np.testing.assert_allclose(total, metrics["cross_entropy"] + 2 * distill, rtol=1e-6)
    image = student.image_residual / 2 if heads else student.image
    expected = np.mean(1 - np.sum(np.asarray(image) * np.asarray(teacher.image), -1))
    np.testing.assert_allclose(metrics["distill_image"], expected, rtol=1e-5)


def test_without_distillation_there_is_no_teacher():
    method = base.load("froster", {"distill_weight": 0.0})
    assert method.teacher.init({"x": jnp.ones(1)}) is None
    total, metrics, _ = method.loss(embeddings(0, True), None, BATCH, ())
    assert total == metrics["cross_entropy"] and set(metrics) == {"cross_entropy", "top1"}


def test_the_teacher_stays_as_it_was():
    teacher, student = {"x": jnp.float32(0.0)}, {"x": jnp.float32(1.0)}
    assert base.load("froster", {}).teacher.update(teacher, student, 0)["x"] == 0
