"""The training state: everything that a run must save to go on as if it had never stopped."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.core import meta
from jax.sharding import Mesh

from models import parameters
from training.mesh import tree_shardings
from training.teacher import TeacherPolicy, each
from training.trainable import ALL, Trainable


@struct.dataclass
class TrainState:
    """One pytree; sharded, donated and checkpointed as a whole.

    Randomness is fold_in(seed, step) and the data order a function of (seed, step), so neither
    needs saving.

    Attributes:
      step: int32 [], updates done.
      params: the student's parameters that learn, by default all (training/trainable.py).
      opt_state: the optimizer's state.
      teacher: of the teacher that moves, what of its parameters does; None for a method without
        one; by name where there are several.
      carry: what the method itself hands from step to step (CE-CLIP's thresholds).
      fixed: what never changes and is kept once: {"params": those of the student's parameters that
        do not learn, "teacher": like teacher, of the one that does not move}.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    teacher: Any
    carry: Any
    fixed: Any

    def student(self):
        """All of the student's parameters, as the model is evaluated and exported with."""
        return parameters.merge(self.params, self.fixed["params"])

    def teachers(self, method):
        """The teacher's parameters, or None; by name where there are several."""

        def whole(policy: TeacherPolicy, moving, fixed):
            own = moving if policy.moves else fixed
            return own if policy.external else parameters.join(own, self.fixed["params"])

        return each(method.teacher, whole, self.teacher, self.fixed["teacher"])

    def with_external(self, method, params: Mapping[str, Any]) -> "TrainState":
        """This state with the parameters of external teachers by name, or of the one "teacher"."""

        def put(policy: TeacherPolicy, own, its):
            return its if policy.external else own

        several = isinstance(method.teacher, Mapping)
        its = dict.fromkeys(method.teacher) | params if several else params.get("teacher")
        teacher = each(method.teacher, put, self.fixed["teacher"], its)
        return self.replace(fixed=self.fixed | {"teacher": teacher})


def create_state(
    params,
    method,
    tx: optax.GradientTransformation,
    trainable: Trainable = ALL,
    key: jax.Array | None = None,
) -> TrainState:
    """The state before the first step; the teacher starts from the student's parameters.

    An external teacher is None: it is not known here.

    Args:
      key: for what trainable adds to the parameters (LoRA).
    """
    learned, frozen = trainable.split(params, key)
    start, kept = trainable.moving(params), trainable.moving(params, low_rank=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=learned,
        opt_state=tx.init(learned),
        teacher=each(method.teacher, lambda policy: policy.init(start) if policy.moves else None),
        carry=method.init_carry(),
        fixed={
            "params": frozen,
            "teacher": each(
                method.teacher, lambda policy: None if policy.moves else policy.init(kept)
            ),
        },
    )


def abstract_state(
    mesh: Mesh, init_params: Callable, method, tx, trainable: Trainable = ALL
) -> TrainState:
    """Shapes and layout of the training state, with nothing computed.

    Args:
      mesh: the devices.
      init_params: key -> parameters in Linen's boxes, which name their axes; the optimizer's
        moments and the teacher inherit them.
      method, tx, trainable: see make_train_step.

    Returns:
      A TrainState of jax.ShapeDtypeStructs with shardings.
    """

    def create(key):
        return create_state(init_params(key), method, tx, trainable, key)

    boxed = jax.eval_shape(create, jax.random.key(0))
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        meta.unbox(boxed),
        tree_shardings(mesh, boxed),
    )


def init_state(
    abstract: TrainState,
    make_params: Callable,
    argument: Any,
    method,
    tx,
    trainable: Trainable = ALL,
    key: jax.Array | None = None,
) -> TrainState:
    """The state before the first step, computed where abstract says it lies.

    Args:
      abstract: from abstract_state.
      make_params: argument -> parameters, boxed or not: an initialiser of a key, or the identity
        of pretrained parameters.
      method, tx, trainable, key: see create_state.
    """

    def create(argument):
        return create_state(meta.unbox(make_params(argument)), method, tx, trainable, key)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(create, out_shardings=shardings)(argument)
