"""The training state: everything that a run must save to go on as if it had never stopped."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """One pytree; sharded, donated and checkpointed as a whole.

    Randomness is fold_in(seed, step) and the data order a function of (seed, step), so neither
    needs saving.

    Attributes:
      step: int32 [], updates done.
      params: the student's parameters.
      opt_state: the optimizer's state.
      teacher: the teacher's parameters, or None for a method without one.
      carry: what the method itself hands from step to step (CE-CLIP's thresholds).
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    teacher: Any
    carry: Any


def create_state(params, method, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step; the teacher starts from the student's parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        teacher=method.teacher.init(params),
        carry=method.init_carry(),
    )
