"""Teacher policies: how the teacher's parameters follow the student's.

The teacher is training state: sharded, donated and checkpointed like the student.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from errors import UserError

Params = Any


class TeacherPolicy(NamedTuple):
    """Two pure functions, as an optax transformation is.

    Attributes:
      init: student params -> teacher params, or None where there is no teacher.
      update: (teacher params, student params after the update, step) -> teacher params.
    """

    init: Callable[[Params], Params]
    update: Callable[[Params, Params, jax.Array], Params]


def _copy(params: Params) -> Params:
    # A teacher that shares the student's buffers would be donated twice.
    return jax.tree.map(jnp.copy, params)


def none() -> TeacherPolicy:
    """No teacher; the method's loss is called with teacher=None."""
    return TeacherPolicy(lambda params: None, lambda teacher, params, step: None)


def frozen() -> TeacherPolicy:
    """The student's initial parameters, unchanged for the whole run (FROSTER)."""
    return TeacherPolicy(_copy, lambda teacher, params, step: teacher)


def ema(decay: float) -> TeacherPolicy:
    """Exponential moving average over every parameter, from the initial ones (DeGLA, section 3.3).

    teacher <- decay * teacher + (1 - decay) * student, once a step.

    Raises:
      UserError: decay outside [0, 1].
    """
    if not 0.0 <= decay <= 1.0:
        raise UserError(f"ema decay is {decay}; give a number from 0 to 1")

    def update(teacher, params, step):
        del step
        # teacher + (1 - decay) * difference keeps the small steps of a decay near 1 in float32.
        return jax.tree.map(lambda t, p: t + (1.0 - decay) * (p - t), teacher, params)

    return TeacherPolicy(_copy, update)
