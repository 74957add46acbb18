"""Loading methods, what is refused, and what the founding methods promise beyond the contract."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from methods import base
from models.embeddings import Embeddings

N, K, D = 4, 4, 8
BATCH = {"negatives_valid": jnp.ones((N, K), bool)}


def embeddings(seed, k=K, logit_bias=None):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        x = rng.normal(size=shape)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    return Embeddings(unit(N, D), unit(N, D), jnp.float32(10), unit(N, k, D), logit_bias)


def test_unknown_method_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"unknown method 'degla2' \(nearest: degla\); there are"):
        base.load("degla2", {})


def test_base_is_not_a_method():
    with pytest.raises(ValueError, match="unknown method 'base'"):
        base.load("base", {})


def test_unknown_option_names_the_nearest_and_all():
    expected = (
        r"option of method degla 'igc_wieght' \(nearest: igc_weight\); there are: .*ema_decay"
    )
    with pytest.raises(ValueError, match=expected):
        base.load("degla", {"igc_wieght": 0.2})
    with pytest.raises(
        ValueError, match="option of method clip 'weight' .*there are: teacher, distill"
    ):
        base.load("clip", {"weight": 0.2})


def test_missing_fields_are_named():
    expected = "needs negatives, negatives_valid and a batch holds only image, text"
    with pytest.raises(ValueError, match=expected):
        base.check_batch(base.load("degla", {}), ["image", "text"])
    base.check_batch(base.load("clip", {}), {"image": 0, "text": 0, "truncated": 0})


def test_unknown_teacher():
    with pytest.raises(ValueError, match="unknown degla teacher 'emma'; give 'ema' or 'frozen'"):
        base.load("degla", {"teacher": "emma"})


def test_siglip_refuses_a_model_without_logit_bias():
    method = base.load("siglip", {})
    with pytest.raises(ValueError, match="siglip needs a logit_bias"):
        method.loss(embeddings(0), None, {}, ())


def test_ce_clip_refuses_another_number_of_negatives():
    method = base.load("ce_clip", {})
    batch = {"negatives_valid": jnp.ones((N, 3), bool)}
    with pytest.raises(ValueError, match="set to 4 negatives a sample and the data has 3"):
        method.loss(embeddings(0, k=3), None, batch, method.init_carry())


@pytest.mark.parametrize("given, clamped", [(-1.0, 0.0), (2.5, 2.5), (5.0, math.log(100.0))])
def test_logit_scale_is_clamped_and_nothing_else(given, clamped):
    params = {"logit_scale": jnp.float32(given), "image": {"kernel": jnp.float32(9.0)}}
    projected = base.load("degla", {}).project(params)
    assert projected["logit_scale"] == jnp.float32(clamped)
    assert projected["image"] is params["image"]
    assert base.load("siglip", {}).project(params) is params


@pytest.mark.parametrize(
    "options, weights",
    [
        ({}, (1.0, 0.1, 0.1, 0.005)),
        ({"contrast_weight": 0.0, "igc_weight": 1.0}, (0, 1, 0.1, 0.005)),
    ],
)
def test_degla_is_the_weighted_sum_of_its_terms(options, weights):
    loss = base.load("degla", options).loss
    total, metrics, _ = loss(embeddings(0), embeddings(1), BATCH, ())
    assert list(metrics) == ["negclip", "igc", "tgc", "distill"]
    expected = sum(w * term for w, term in zip(weights, metrics.values(), strict=True))
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_degla_contrasts_the_teachers_caption_with_the_students_negatives():
    student, teacher = embeddings(0), embeddings(1)
    term = base.load("degla", {}).loss(student, teacher, BATCH, ())[1]["tgc"]
    student, teacher = jax.device_get((student, teacher))
    positive = np.einsum("nd,nd->n", student.text, teacher.text)
    negative = np.einsum("nd,nkd->nk", student.text, student.negatives)
    expected = np.log1p(np.exp(10 * (negative - positive[:, None])).sum(1)).mean()
    np.testing.assert_allclose(term, expected, rtol=1e-5)


def test_degla_teacher_policies():
    student, teacher = {"x": jnp.float32(1.0)}, {"x": jnp.float32(0.0)}
    ema = base.load("degla", {}).teacher.update(teacher, student, 0)
    np.testing.assert_allclose(ema["x"], 0.0004, rtol=1e-4)
    frozen = base.load("degla", {"teacher": "frozen"}).teacher.update(teacher, student, 0)
    assert frozen["x"] == 0


@pytest.mark.parametrize(
    "options, changed",
    [
        ({"tgc_mask": "released"}, {"tgc"}),
        ({"tgc_scale": 20.0}, {"tgc"}),
        ({"distill_reduction": "mean"}, {"distill"}),
        ({"distill_negatives": False}, {"distill"}),
    ],
)
def test_degla_options_reach_their_term(options, changed):
    terms = [
        base.load("degla", chosen).loss(embeddings(0), embeddings(1), BATCH, ())[1]
        for chosen in ({}, options)
    ]
    assert {name for name in terms[0] if terms[0][name] != terms[1][name]} == changed


@pytest.mark.parametrize("name, teacher", [("degla", "ema"), ("clip", "frozen")])
def test_negatives_need_not_be_held(name, teacher):
    method = base.load(name, {"teacher": teacher, "distill_negatives": False})
    student, target = embeddings(0), embeddings(1)
    _, metrics, _ = method.loss(student, target, BATCH, ())
    apart = (getattr(student, of) - getattr(target, of) for of in ("image", "text"))
    expected = sum(np.sum(np.square(difference)) for difference in apart)
    np.testing.assert_allclose(metrics["distill"], expected, rtol=1e-5)


def test_ce_clip_is_the_weighted_sum_and_hands_on_its_thresholds():
    method = base.load("ce_clip", {})
    start = method.init_carry()
    np.testing.assert_array_equal(start, np.zeros(K, np.float32))
    total, metrics, following = method.loss(embeddings(0), None, BATCH, start)
    expected = metrics["negclip"] + 0.3 * metrics["imc"] + 0.2 * metrics["cmr"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert metrics["threshold"] == 0
    e = jax.device_get(embeddings(0))
    positive = np.einsum("nd,nd->n", e.image, e.text)
    gap = 10 * (positive[:, None] - np.einsum("nd,nkd->nk", e.image, e.negatives))
    np.testing.assert_allclose(following, np.clip(gap.mean(0), 0, 10), rtol=1e-5)
    assert following.max() > 0
    second = method.loss(embeddings(0), None, BATCH, following)[1]
    np.testing.assert_allclose(second["threshold"], np.mean(following), rtol=1e-6)
