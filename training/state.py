"""The training state: everything that a run must save to go on as if it had never stopped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.core import meta
from jax.sharding import Mesh

from training.mesh import tree_shardings


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


def abstract_state(mesh: Mesh, init_params: Callable, method, tx) -> TrainState:
    """Shapes and layout of the training state, with nothing computed.

    Args:
      mesh: the devices.
      init_params: key -> parameters in Linen's boxes, which name their axes; the optimizer's
        moments and the teacher inherit them.
      method, tx: see make_train_step.

    Returns:
      A TrainState of jax.ShapeDtypeStructs with shardings.
    """

    def create(key):
        return create_state(init_params(key), method, tx)

    boxed = jax.eval_shape(create, jax.random.key(0))
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        meta.unbox(boxed),
        tree_shardings(mesh, boxed),
    )


def init_state(
    abstract: TrainState, make_params: Callable, method, tx, argument: Any
) -> TrainState:
    """The state before the first step, computed where abstract says it lies.

    Args:
      abstract: from abstract_state.
      make_params: argument -> parameters, boxed or not: an initialiser of a key, or the identity
        of pretrained parameters.
    """

    def create(argument):
        return create_state(meta.unbox(make_params(argument)), method, tx)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(create, out_shardings=shardings)(argument)
