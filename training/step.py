"""The training step, a pure function of state and batch: testable without a loop, mesh or model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from models import parameters
from training.state import TrainState
from training.teacher import TeacherPolicy, each
from training.trainable import ALL, Trainable

# The names that metrics over all parameters start with.
MEASURED = ("grad_norm", "param_norm", "teacher_distance")


def make_train_step(
    student_apply: Callable,
    teacher_apply: Callable,
    method,
    tx: optax.GradientTransformation,
    trainable: Trainable = ALL,
    norms: bool = False,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """Builds `(state, batch, measured=True) -> (state, metrics)`; jit it with the state donated.

    Args:
      student_apply: (params, batch) -> what the method's loss takes, such as Embeddings.
      teacher_apply: (teacher params, batch) -> likewise; unused by a method without a teacher,
        and by name where it has several.
      method: a methods.base.Method.
      tx: the optimizer, of the parameters that learn.
      trainable: which these are.
      norms: measure every parameter that learns and its gradient, param_norm/PATH, grad_norm/PATH.

    Returns:
      The step. Its metrics are float32 scalars: the method's own terms and what it observes, and
      loss; and those of MEASURED, which go over all parameters: grad_norm (before clipping) and,
      where there is a teacher, teacher_distance (L2 distance of its parameters from the student's,
      relative to the teacher's norm). These are NaN where `measured`, a bool [], is False.
    """

    applies = teacher_apply
    if teacher_apply is None or callable(teacher_apply):
        applies = each(method.teacher, lambda policy: teacher_apply)

    def step(state, batch, measured=True):
        frozen, teachers = state.fixed["params"], state.teachers(method)

        def look(policy: TeacherPolicy, params, apply):
            return None if params is None else jax.lax.stop_gradient(apply(params, batch))

        teacher = each(method.teacher, look, teachers, applies)

        def loss_fn(params):
            student = student_apply(parameters.join(params, frozen), batch)
            loss, metrics, carry = method.loss(student, teacher, batch, state.carry)
            return loss, (dict(metrics, **method.observe(student), loss=loss), carry)

        grads, (metrics, carry) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The EMA sees the update before logit_scale is clamped, as DeGLA's released code does.
        moving = trainable.moving(parameters.merge(params, frozen))
        teacher_params = each(
            method.teacher,
            lambda policy, teacher: policy.update(teacher, moving, state.step),
            state.teacher,
        )
        new_state = state.replace(
            step=state.step + 1,
            params=method.project(params),
            opt_state=opt_state,
            teacher=teacher_params,
            carry=carry,
        )

        def measure_grads():
            by_path = _norms("grad_norm", grads) if norms else {}
            return {"grad_norm": optax.tree.norm(grads), **by_path}

        def measure_params():
            by_path = _norms("param_norm", new_state.params) if norms else {}
            return by_path | _distances(new_state, method, trainable)

        return new_state, metrics | _when(measured, measure_grads) | _when(measured, measure_params)

    return step


def _when(measured, measure: Callable[[], dict]) -> dict:
    """What measure() returns, or as many NaNs that cost nothing: one program does both."""
    if measured is True:
        return measure()
    shapes = jax.eval_shape(measure)
    nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
    return jax.lax.cond(measured, measure, lambda: nothing)


def jit_train_step(step: Callable, abstract: TrainState) -> Callable:
    """Compiles a step whose state lies as abstract says, and is donated."""
    # Left to itself, the compiler may like another layout better: step two would compile again.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    mesh = jax.tree.leaves(shardings)[0].mesh

    def on_mesh(state, batch, measured=True):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # what losses lay out rows by
            return step(state, batch, measured)

    return jax.jit(on_mesh, donate_argnums=0, out_shardings=(shardings, None))


def _norms(name: str, tree) -> dict[str, jax.Array]:
    leaves = traverse_util.flatten_dict(tree, sep="/")
    return {f"{name}/{path}": optax.tree.norm(leaf) for path, leaf in leaves.items()}


def _distances(state: TrainState, method, trainable: Trainable) -> dict[str, jax.Array]:
    """How far the student is from its own teacher, or from each by name."""
    student = trainable.moving(state.student())

    def distance(policy: TeacherPolicy, teacher):
        if teacher is None or policy.external:
            return None
        difference = jax.tree.map(lambda p, t: p - t, student, trainable.moving(teacher))
        return optax.tree.norm(difference) / optax.tree.norm(teacher)

    distances = each(method.teacher, distance, state.teachers(method))
    by_name = distances if isinstance(distances, dict) else {"": distances}
    return {
        "/".join(filter(None, ("teacher_distance", name))): value
        for name, value in by_name.items()
        if value is not None
    }
