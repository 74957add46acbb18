"""Position embeddings for another image size."""

import math

import jax
import numpy as np


def resize_positions(positions: np.ndarray, num_positions: int) -> np.ndarray:
    """Position embeddings of a square grid for another one; bicubic, as open_clip does.

    Args:
      positions: float32 [n, width]; n is a square, or one more with a class token in front.
      num_positions: of the new grid, with as many class tokens.

    Returns:
      float32 [num_positions, width].
    """
    extra = len(positions) - math.isqrt(len(positions)) ** 2 and 1
    old, new = math.isqrt(len(positions) - extra), math.isqrt(num_positions - extra)
    grid = positions[extra:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    return np.concatenate([positions[:extra], np.asarray(grid).reshape(new * new, -1)])
