"""One update in closed form, and the order in which the parts of a step happen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from methods.base import Method
from models.embeddings import Embeddings
from training.state import create_state
from training.step import MEASURED, make_train_step
from training.teacher import ema, external, frozen
from training.trainable import Rule, Trainable


def apply(params, batch):
    rows = params["w"][None, :] * batch["x"]
    return Embeddings(image=rows, text=rows, logit_scale=jnp.exp(params["logit_scale"]))


def squared(student, teacher, batch, carry):
    """sum (w x - t x)^2 / 2 to the teacher plus logit_scale's exponent, whose gradient is known."""
    loss = jnp.sum((student.image - teacher.image) ** 2) / 2 + student.logit_scale
    return loss, {"term": loss}, carry + 1


def make(policy, project, **options):
    method = Method(squared, policy, init_carry=lambda: jnp.zeros((), jnp.int32), project=project)
    tx = optax.sgd(0.1)
    params = {"w": jnp.array([1.0, 2.0]), "logit_scale": jnp.float32(0.0)}
    state = create_state(params, method, tx)
    # The teacher's w is 0, wherever it lies.
    teacher = {**state.teachers(method), "w": jnp.zeros(2)}
    if policy.moves:
        state = state.replace(teacher=teacher)
    else:
        state = state.replace(fixed=state.fixed | {"teacher": teacher})
    return state, make_train_step(apply, apply, method, tx, **options)


def halve_scale(params):
    return {**params, "logit_scale": params["logit_scale"] / 2}


@pytest.mark.parametrize("jit", [False, True])
def test_update_in_closed_form(jit):
    state, step = make(frozen(), halve_scale)
    x = np.array([[1.0, 3.0], [2.0, 0.0]], np.float32)
    step = jax.jit(step) if jit else step
    state, metrics = step(state, {"x": x})

    # d/dw sum_i (w x_i)^2 / 2 = w sum_i x_i^2; d/ds exp(s) = 1 at 0.
    grad = np.array([1.0, 2.0]) * (x**2).sum(0)
    np.testing.assert_allclose(state.params["w"], np.array([1.0, 2.0]) - 0.1 * grad, rtol=1e-6)
    np.testing.assert_allclose(state.params["logit_scale"], -0.1 / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt((grad**2).sum() + 1), rtol=1e-6)
    np.testing.assert_allclose(metrics["logit_scale"], 1.0)
    np.testing.assert_allclose(metrics["loss"], ((np.array([1, 2]) * x) ** 2).sum() / 2 + 1)
    assert metrics["loss"] == metrics["term"]
    assert int(state.step) == 1 and int(state.carry) == 1


def test_norms_of_every_parameter_and_gradient_where_they_are_asked_for():
    state, step = make(frozen(), halve_scale, norms=True)
    state, metrics = step(state, {"x": np.array([[1.0, 3.0], [2.0, 0.0]], np.float32)})
    grad = np.array([1.0, 2.0]) * np.array([5.0, 9.0])
    np.testing.assert_allclose(metrics["grad_norm/w"], np.linalg.norm(grad), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm/logit_scale"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["param_norm/w"], np.linalg.norm(state.params["w"]))
    np.testing.assert_allclose(metrics["param_norm/logit_scale"], 0.05, rtol=1e-6)


def test_what_is_only_logged_is_measured_where_it_is_asked_for():
    """All else is the same, in one program."""
    batches = [{"x": np.full((1, 2), value, np.float32)} for value in (1, 2, 3)]
    (state, step), (other, _) = (make(ema(0.5), halve_scale, norms=True) for _ in range(2))
    step = jax.jit(step)
    for batch, measured in zip(batches, (False, True, False), strict=True):
        state, metrics = step(state, batch, measured)
        other, whole = step(other, batch, True)
        jax.tree.map(np.testing.assert_array_equal, state, other)
        assert metrics.keys() == whole.keys()
        for name, value in metrics.items():
            logged_only = name.startswith(MEASURED)
            assert np.isnan(value) == (logged_only and not measured), name
            assert measured is False and logged_only or value == whole[name]
    assert step._cache_size() == 1


def test_the_teacher_sees_the_update_before_the_clamp():
    state, step = make(ema(0.5), halve_scale)
    state, metrics = step(state, {"x": np.ones((1, 2), np.float32)})
    # The student's unclamped logit_scale is -0.1; the teacher was at 0.
    np.testing.assert_allclose(state.teacher["logit_scale"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(state.teacher["w"], 0.5 * 0.9 * np.array([1.0, 2.0]), rtol=1e-6)
    difference = 0.5 * 0.9 * np.array([1.0, 2.0])
    wanted = np.sqrt((difference**2).sum()) / np.sqrt((difference**2).sum() + 0.05**2)
    np.testing.assert_allclose(metrics["teacher_distance"], wanted, rtol=1e-5)


def test_a_method_of_another_model_says_itself_what_is_projected_and_logged():
    def loss(student, teacher, batch, carry):
        return jnp.sum(student**2) / 2, {}, carry

    method = Method(loss, project=lambda params: params, observe=lambda student: {})
    tx = optax.sgd(0.1)
    step = make_train_step(lambda params, batch: params["w"] * batch["x"], None, method, tx)
    state, metrics = step(create_state({"w": jnp.ones(2)}, method, tx), {"x": jnp.ones(2)})
    assert set(metrics) == {"loss", "grad_norm"}
    np.testing.assert_allclose(state.params["w"], 0.9)


def test_a_student_that_learns_in_part_and_its_teacher():
    """Half of w learns; the average is the same as that of the whole."""
    learned = Trainable({"w": None, "logit_scale": Rule()})
    method = Method(squared, ema(0.5), init_carry=lambda: jnp.zeros((), jnp.int32))
    tx = optax.sgd(0.1)
    params = {"w": jnp.array([1.0, 2.0]), "logit_scale": jnp.float32(1.0)}
    state = create_state(params, method, tx, learned)
    step = jax.jit(make_train_step(apply, apply, method, tx, learned))
    state, metrics = step(state, {"x": np.ones((1, 2), np.float32)})
    assert state.teacher.keys() == state.params.keys() == {"logit_scale"}
    np.testing.assert_array_equal(state.student()["w"], [1.0, 2.0])
    np.testing.assert_array_equal(state.teachers(method)["w"], [1.0, 2.0])
    scale = 1 - 0.1 * np.e
    np.testing.assert_allclose(state.student()["logit_scale"], scale, rtol=1e-6)
    np.testing.assert_allclose(state.teachers(method)["logit_scale"], (1 + scale) / 2, rtol=1e-6)
    wanted = (1 - scale) / 2 / np.sqrt(5 + ((1 + scale) / 2) ** 2)
    np.testing.assert_allclose(metrics["teacher_distance"], wanted, rtol=1e-5)


def test_several_teachers_by_name():
    """One that follows, one that stays, and one of another model."""

    def loss(student, teacher, batch, carry):
        terms = {name: jnp.sum((student.image - its.image) ** 2) for name, its in teacher.items()}
        return sum(terms.values()), terms, carry

    method = Method(loss, {"mean": ema(0.5), "start": frozen(), "other": external()})
    tx = optax.sgd(0.1)
    params = {"w": jnp.array([1.0, 2.0]), "logit_scale": jnp.float32(0.0)}
    state = create_state(params, method, tx)
    other = {"half": jnp.array([4.0, 0.0])}
    state.fixed["teacher"]["other"] = other

    def apply_other(params, batch):
        return apply({"w": params["half"] / 2, "logit_scale": jnp.float32(0)}, batch)

    applies = {"mean": apply, "start": apply, "other": apply_other}
    step = jax.jit(make_train_step(apply, applies, method, tx))
    x = {"x": np.ones((1, 2), np.float32)}
    state, metrics = step(state, x)
    assert (metrics["mean"], metrics["start"], metrics["other"]) == (0, 0, 1 + 4)
    # The gradient of the squared distance to (2, 0) is (-2, 4).
    np.testing.assert_allclose(state.params["w"], [1.2, 1.6], rtol=1e-6)
    np.testing.assert_allclose(state.teacher["mean"]["w"], [1.1, 1.8], rtol=1e-6)
    np.testing.assert_array_equal(state.fixed["teacher"]["start"]["w"], [1.0, 2.0])
    jax.tree.map(np.testing.assert_array_equal, state.fixed["teacher"]["other"], other)
    assert {"teacher_distance/mean", "teacher_distance/start"} <= metrics.keys()
    assert "teacher_distance/other" not in metrics
