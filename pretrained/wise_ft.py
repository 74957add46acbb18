"""Weights between two models (WiSE-FT)."""

import math

import jax
import jax.numpy as jnp

from errors import UserError


def as_alpha(value: float | str) -> float:
    """The number that a flag's text or a number stands for.

    Raises:
      UserError: it is none from 0 to 1.
    """
    try:
        alpha = float(value)
    except ValueError:
        alpha = math.nan
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {value}; give a number from 0 to 1")
    return alpha


def wise_ft(reference, fine_tuned, alpha: float):
    """(1 - alpha) * reference + alpha * fine_tuned (WiSE-FT, Wortsman et al. 2022, equation 2).

    Args:
      reference, fine_tuned: parameter trees of one shape.
      alpha: 0 is the reference, 1 the fine-tuned model, both bit for bit.

    Raises:
      UserError: alpha outside [0, 1], or trees that differ.
    """
    alpha = as_alpha(alpha)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (reference, fine_tuned)]
    if shapes[0] != shapes[1]:
        raise UserError("the two checkpoints of WiSE-FT are not of one shape")
    return jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, reference, fine_tuned)
