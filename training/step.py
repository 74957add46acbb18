"""The training step, a pure function of state and batch: testable without a loop, mesh or model."""

from collections.abc import Callable

import jax
import optax

from training.state import TrainState


def make_train_step(
    student_apply: Callable, teacher_apply: Callable, method, tx: optax.GradientTransformation
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """Builds `(state, batch) -> (state, metrics)`; jit it with the state donated.

    Args:
      student_apply: (params, batch) -> what the method's loss takes, such as Embeddings.
      teacher_apply: (teacher params, batch) -> likewise; unused by a method without a teacher.
      method: a methods.base.Method.
      tx: the optimizer.

    Returns:
      The step. Its metrics are float32 scalars: the method's own terms and what it observes, loss,
      grad_norm (before clipping) and, where there is a teacher, teacher_distance (L2 distance of
      its parameters from the student's, relative to the teacher's norm).
    """

    def step(state, batch):
        teacher = None
        if state.teacher is not None:
            teacher = jax.lax.stop_gradient(teacher_apply(state.teacher, batch))

        def loss_fn(params):
            student = student_apply(params, batch)
            loss, metrics, carry = method.loss(student, teacher, batch, state.carry)
            return loss, (dict(metrics, **method.observe(student), loss=loss), carry)

        grads, (metrics, carry) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The EMA sees the update before logit_scale is clamped, as DeGLA's released code does.
        teacher_params = method.teacher.update(state.teacher, params, state.step)
        params = method.project(params)

        metrics["grad_norm"] = optax.tree.norm(grads)
        if teacher_params is not None:
            metrics["teacher_distance"] = _distance(params, teacher_params)
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            teacher=teacher_params,
            carry=carry,
        )
        return new_state, metrics

    return step


def jit_train_step(step: Callable, abstract: TrainState) -> Callable:
    """Compiles a step whose state lies as abstract says, and is donated."""
    # Left to itself, the compiler may like another layout better: step two would compile again.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _distance(params, teacher):
    difference = jax.tree.map(lambda p, t: p - t, params, teacher)
    return optax.tree.norm(difference) / optax.tree.norm(teacher)
