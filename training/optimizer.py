"""AdamW with warmup and cosine decay, as CLIP's fine-tuning recipes use it."""

import jax
import optax

from errors import UserError
from models.parameters import PARTS

# Biases and norm scales are stacked over layers, so rank alone does not tell them from matrices.
_NOT_DECAYED = ("bias", "scale")
# The second moment is always float32: a step changes it by up to 1 - b2 of the gradient's square,
# which bfloat16, with 8 bits, loses where b2 is near 1: it would never fall again.
MU_DTYPES = ("float32", "bfloat16")


def decay_mask(params):
    """True for the parameters that weight decay applies to: matrices and embedding tables."""

    def is_matrix(path, leaf):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        names = [name for name in names if name not in PARTS]
        return leaf.ndim >= 2 and not set(names[-1:]) & set(_NOT_DECAYED)

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def warmup_cosine(
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    init_learning_rate: float | None = None,
    end_learning_rate: float = 0.0,
) -> optax.Schedule:
    """open_clip's schedule: linear to the peak, then a cosine.

    Args:
      learning_rate: the peak, reached by the last of warmup_steps.
      init_learning_rate: of the first step of warmup; None for learning_rate / warmup_steps.
      end_learning_rate: that the cosine tends to.

    Raises:
      UserError: warmup that is not shorter than the run, or another rate above the peak.
    """
    if init_learning_rate is None:
        init_learning_rate = learning_rate / max(warmup_steps, 1)
    for name, rate in (("init", init_learning_rate), ("end", end_learning_rate)):
        if not 0 <= rate <= learning_rate:
            raise UserError(
                f"{name}_learning_rate={rate:g} must lie in [0, learning_rate={learning_rate:g}]: "
                f"change config.optimizer.{name}_learning_rate"
            )
    if not 0 <= warmup_steps < total_steps:
        raise UserError(
            f"warmup_steps={warmup_steps} must lie in [0, total_steps={total_steps}): "
            "change config.optimizer.warmup_steps (or warmup_epochs) or the length of the run"
        )
    return optax.join_schedules(
        [
            optax.linear_schedule(init_learning_rate, learning_rate, max(warmup_steps - 1, 1)),
            optax.cosine_decay_schedule(
                learning_rate, total_steps - warmup_steps, end_learning_rate / (learning_rate or 1)
            ),
        ],
        [warmup_steps],
    )


def make_optimizer(
    *,
    total_steps: int,
    learning_rate: float,
    warmup_steps: int,
    warmup_epochs: float | None = None,
    steps_per_epoch: int | None = None,
    init_learning_rate: float | None = None,
    end_learning_rate: float = 0.0,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    grad_clip_norm: float,
    mu_dtype: str = "float32",
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """AdamW with decay on matrices only, after clipping by global norm (0 = no clipping).

    Warmup lasts warmup_epochs of steps_per_epoch where they are given, else warmup_steps.

    Args:
      mu_dtype: of the first moment in memory, one of MU_DTYPES.

    Returns:
      (learning rate by step, optimizer)

    Raises:
      UserError: another mu_dtype, or warmup that is not shorter than the run.
    """
    if mu_dtype not in MU_DTYPES:
        raise UserError(
            f"config.optimizer.mu_dtype is '{mu_dtype}'; there are: {', '.join(MU_DTYPES)}"
        )
    if warmup_epochs is not None:
        warmup_steps = round(warmup_epochs * steps_per_epoch)
    schedule = warmup_cosine(
        learning_rate, warmup_steps, total_steps, init_learning_rate, end_learning_rate
    )
    tx = optax.adamw(
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=decay_mask,
        mu_dtype=mu_dtype,
    )
    if grad_clip_norm:
        tx = optax.chain(optax.clip_by_global_norm(grad_clip_norm), tx)
    return schedule, tx
