"""A batch embedded in parts, one after another, so that the memory of one is enough.

The loss sees the embeddings of the whole batch, and so all its negatives; what the activations of a
part were is computed again on the way back (GradCache, arXiv 2101.06983). Value and gradient are
those of the batch in one piece.
"""

from collections.abc import Callable

import jax

from training.mesh import REPLICATED


def microbatched(
    apply: Callable,
    microbatches: int,
    shards: int = 1,
    constrain: Callable = lambda x, names: x,
) -> Callable:
    """(params, batch) -> what apply returns for it, computed in microbatches.

    Args:
      apply: (params, batch) -> a tree. Where a leaf has a row for each sample these are joined;
        any other leaf, such as the logit_scale, must be the same for every part.
      microbatches: parts of the batch. The rows of every field must be divisible by
        shards x microbatches, and texts be packed in as many parts.
      shards: parts that the batch is laid out in; each gives its share to every microbatch.
      constrain: lays out an array by the names of its axes (training/mesh.py).
    """
    if microbatches == 1:
        return apply

    def split(x):
        parts = x.reshape(shards, microbatches, -1, *x.shape[1:]).swapaxes(0, 1)
        parts = parts.reshape(microbatches, -1, *x.shape[1:])
        return constrain(parts, (None, "batch", *[None] * (x.ndim - 1)))

    def join(parts):
        rows = parts.reshape(microbatches, shards, -1, *parts.shape[2:]).swapaxes(0, 1)
        return constrain(rows.reshape(-1, *parts.shape[2:]), ("batch", *[None] * (parts.ndim - 2)))

    def embed(params, batch):
        shared = {name: x for name, x in batch.items() if name in REPLICATED}
        parts = {name: split(x) for name, x in batch.items() if name not in REPLICATED}
        one = jax.checkpoint(lambda part: apply(params, part | shared))
        whole_shapes = jax.eval_shape(apply, params, batch)
        return jax.tree.map(
            lambda part, whole: part[0] if part.shape[1:] == whole.shape else join(part),
            jax.lax.map(one, parts),
            whole_shapes,
        )

    return embed
