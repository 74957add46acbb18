"""The methods on top of NegCLIP and CLIP are the sums of their terms, alone and under a teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from errors import UserError
from losses import concatenation, contrastive, distillation
from methods import base
from tests.methods import small

OPTIONAL = ("clip", "negclip", "ce_clip", "siglip", "fsc_clip", "read_clip", "cs_clip", "clic")
TERMS = {
    "fsc_clip": {"info_nce": 1.0, "global": 0.5, "local": 0.2},
    "read_clip": {"negclip": 1.0, "alignment": 0.5},
    "cs_clip": {"negclip": 1.0, "unit": 0.5},
    "clic": {"contrast": 0.5, "exchanged": 0.5, "order": 1.0},
}


def embedded(method, seed=0):
    params = small.make_params()
    params = jax.tree.map(lambda x: x + seed * jnp.sin(x), params)
    batch = small.make_batch(method, 3)
    return small.embedder(method)(params, batch), batch


@pytest.mark.parametrize("name", TERMS)
def test_each_is_the_weighted_sum_of_its_terms(name):
    method = base.load(name, {})
    student, batch = embedded(method)
    total, metrics, _ = method.loss(student, None, batch, ())
    assert set(metrics) == set(TERMS[name])
    expected = sum(weight * metrics[term] for term, weight in TERMS[name].items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert all(value > 0 for value in metrics.values())


@pytest.mark.parametrize(
    "name, option, term",
    [
        ("fsc_clip", "global_weight", "global"),
        ("fsc_clip", "local_weight", "local"),
        ("read_clip", "alignment_weight", "alignment"),
        ("cs_clip", "unit_weight", "unit"),
        ("clic", "contrast_weight", "contrast"),
        ("clic", "negative_weight", "exchanged"),
        ("clic", "order_weight", "order"),
    ],
)
def test_weights_reach_their_terms(name, option, term):
    method = base.load(name, {option: 3.0})
    student, batch = embedded(method)
    total, metrics, _ = method.loss(student, None, batch, ())
    weights = {**TERMS[name], term: 3.0}
    expected = sum(weights[name] * value for name, value in metrics.items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_fsc_clip_without_words_asks_the_model_for_none():
    method = base.load("fsc_clip", {"local_weight": 0.0})
    assert method.needs == () and base.load("fsc_clip", {}).needs
    student, batch = embedded(method)
    assert set(method.loss(student, None, batch, ())[1]) == {"info_nce", "global"}


def test_fsc_clip_contrasts_no_negatives_in_its_clip_loss():
    student, batch = embedded(base.load("fsc_clip", {}))
    term = base.load("fsc_clip", {}).loss(student, None, batch, ())[1]["info_nce"]
    args = (student.image, student.text, student.logit_scale)
    np.testing.assert_allclose(term, contrastive.info_nce(*args), rtol=1e-6)


def test_cs_clip_is_the_mean_over_its_units_each_with_its_own_foil():
    method = base.load("cs_clip", {})
    student, batch = embedded(method)
    units, valid = student.texts["units"], batch["valid:units"]
    assert units.shape[1:3] == (2, 2)
    terms = [
        contrastive.unit_contrast(
            student.image, units[:, m, 0], units[:, m, 1], valid[:, m], student.logit_scale
        )
        for m in (0, 1)
    ]
    metrics = method.loss(student, None, batch, ())[1]
    np.testing.assert_allclose(metrics["unit"], np.mean(terms), rtol=1e-6)
    params = {"logit_scale": jnp.float32(9.0)}
    assert method.project(params) is params


def test_clic_counts_the_caption_among_the_texts_and_takes_its_one_negative():
    method = base.load("clic", {})
    student, batch = embedded(method)
    metrics = method.loss(student, None, batch, ())[1]
    texts = jnp.concatenate([student.text[:, None], student.texts["joined"]], axis=1)
    valid = jnp.concatenate([jnp.ones((small.N, 1), bool), batch["valid:joined"]], axis=1)
    args = (student.image, texts, valid)
    contrast = concatenation.contrast(*args, student.logit_scale)
    np.testing.assert_allclose(metrics["contrast"], contrast, rtol=1e-6)
    own = (student.negatives[:, 0], batch["negatives_valid"][:, 0], student.logit_scale)
    np.testing.assert_allclose(
        metrics["exchanged"], concatenation.exchanged(*args, *own), rtol=1e-6
    )


def test_clic_on_a_batch_of_singles_is_clip():
    method, clip = base.load("clic", {"teacher": "frozen"}), base.load("clip", {})
    student, batch = embedded(clip)
    total, metrics, _ = method.loss(student, student, batch, ())
    assert set(metrics) == {"info_nce", "distill"} and metrics["distill"] == 0
    np.testing.assert_allclose(total, clip.loss(student, None, batch, ())[0], rtol=1e-6)


@pytest.mark.parametrize("teacher", ["ema", "frozen"])
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_teacher_adds_its_distillation_and_nothing_else(name, teacher):
    alone = base.load(name, {})
    method = base.load(name, {"teacher": teacher, "distill_weight": 0.25, "ema_decay": 0.5})
    (student, batch), (other, _) = embedded(method), embedded(method, seed=1)
    carry = method.init_carry()
    total, metrics, _ = method.loss(student, other, batch, carry)
    plain, plain_metrics, _ = alone.loss(student, None, batch, carry)
    distill = distillation.squared_error(student, other, batch.get("negatives_valid"))
    assert distill > 0.1 and set(metrics) == {*plain_metrics, "distill"}
    np.testing.assert_allclose(total, plain + 0.25 * distill, rtol=1e-6)
    moved = method.teacher.update({"x": jnp.float32(0)}, {"x": jnp.float32(1)}, 0)["x"]
    assert moved == (0.5 if teacher == "ema" else 0)
    assert alone.teacher.init({"x": jnp.ones(1)}) is None
    assert (method.fields, method.needs) == (alone.fields, alone.needs)


@pytest.mark.parametrize("option", [None, "feature_weight", "interactive_weight"])
def test_clip_kd_is_the_weighted_sum_of_its_terms_in_the_teachers_space(option):
    method = base.load("clip_kd", {option: 3.0} if option else {})
    state, batch = small.make_state(method, optax.sgd(0.1)), small.make_batch(method, 3)
    student, teacher = (
        small.embedder(method)(params, batch) for params in (state.params, state.teachers(method))
    )
    total, metrics, _ = method.loss(student, teacher, batch, ())
    weights = {"info_nce": 1, "feature": 2000, "interactive": 1, "relational": 1}
    weights |= {option.removesuffix("_weight"): 3} if option else {}
    expected = sum(weights[name] * value for name, value in metrics.items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)

    maps = state.params["teacher_maps"]["teacher"]
    errors = [
        small.unit(getattr(student, of) @ maps[of]["kernel"]) - getattr(teacher, of)
        for of in ("image", "text")
    ]
    feature = sum(np.mean(np.square(error)) for error in errors)
    np.testing.assert_allclose(metrics["feature"], feature, rtol=1e-5)
    assert method.teacher.external and student.image.shape != teacher.image.shape


def test_clip_kd_has_its_own_teacher_beside_the_larger_one():
    method = base.load("clip_kd", {"teacher": "ema", "distill_weight": 0.25, "ema_decay": 0.5})
    assert set(method.teacher) == {"teacher", "self"} and method.teacher["teacher"].external
    state, batch = small.make_state(method, optax.sgd(0.1)), small.make_batch(method, 3)
    look = small.embedder(method)
    student = look(state.params, batch)
    larger = look(state.teachers(method)["teacher"], batch)
    itself = look(jax.tree.map(lambda x: x + jnp.sin(x), state.params), batch)
    total, metrics, _ = method.loss(student, {"teacher": larger, "self": itself}, batch, ())
    plain, plain_metrics, _ = base.load("clip_kd", {}).loss(student, larger, batch, ())
    distill = distillation.squared_error(student, itself, None)
    assert distill > 0.1 and set(metrics) == {*plain_metrics, "distill"}
    np.testing.assert_allclose(total, plain + 0.25 * distill, rtol=1e-6)


def test_an_unknown_teacher_is_named():
    with pytest.raises(UserError, match="unknown teacher 'emma'; give 'none', 'ema' or 'frozen'"):
        base.load("clip", {"teacher": "emma"})
    with pytest.raises(UserError, match="nearest: distill_weight.*alignment_weight, teacher"):
        base.load("read_clip", {"distil_weight": 1})
