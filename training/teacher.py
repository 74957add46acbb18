"""Teacher policies: how the teacher's parameters follow the student's.

The teacher is training state: sharded and donated like the student, and checkpointed like it where
it moves. One that does not is kept once for the whole run.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from errors import UserError

Params = Any


class TeacherPolicy(NamedTuple):
    """Two pure functions, as an optax transformation is.

    Of a student that learns in part, both see the part that does.

    Attributes:
      init: student params -> teacher params, or None where there is no teacher.
      update: (teacher params, student params after the update, step) -> teacher params.
      moves: whether update ever changes them.
      external: whether they are another model's, which config.teacher names.
    """

    init: Callable[[Params], Params]
    update: Callable[[Params, Params, jax.Array], Params]
    moves: bool = True
    external: bool = False


Policies = TeacherPolicy | Mapping[str, TeacherPolicy]


def each(policies: Policies, function: Callable, *of_each):
    """function(policy, ...) of the one teacher, or by name of several."""
    if not isinstance(policies, Mapping):
        return function(policies, *of_each)
    return {
        name: function(policy, *(by_name[name] for by_name in of_each))
        for name, policy in policies.items()
    }


def _stay(teacher: Params, params: Params, step: jax.Array) -> Params:
    return teacher


def _copy(params: Params) -> Params:
    # A teacher that shares the student's buffers would be donated twice.
    return jax.tree.map(jnp.copy, params)


def none() -> TeacherPolicy:
    """No teacher; the method's loss is called with teacher=None."""
    return TeacherPolicy(lambda params: None, _stay, moves=False)


def frozen() -> TeacherPolicy:
    """The student's initial parameters, unchanged for the whole run (FROSTER)."""
    return TeacherPolicy(_copy, _stay, moves=False)


def external() -> TeacherPolicy:
    """Another model, of any shape or family, unchanged: what config.teacher names (CLIP-KD)."""
    return TeacherPolicy(lambda params: None, _stay, moves=False, external=True)


def ema(decay: float) -> TeacherPolicy:
    """Exponential moving average over every parameter, from the initial ones (DeGLA, section 3.3).

    teacher <- decay * teacher + (1 - decay) * student, once a step. Of a student that learns in
    part this is the average of what moves, exactly: what does not equals its own average, and of a
    matrix with a product of low rank the sum is averaged, for the mean of products is no product.

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
