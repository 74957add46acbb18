"""A checksum of every array of a tree, computed on the devices where its parts lie.

The files of a checkpoint carry none: a byte that flips on a disk, or on the way from it, would be
read as another number, in silence.
"""

from collections import defaultdict
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHECKSUMS = "checksums"  # their key beside a checkpoint's config, by item and path
_MULTIPLIER = np.uint32(2654435761)  # Knuth's, 2^32 over the golden ratio


@jax.jit
def _checksums(leaves):
    return [_checksum(leaf) for leaf in leaves]


def _checksum(x: jax.Array) -> jax.Array:
    # An odd factor for each place: no change of a single number, and no exchange of two, goes
    # unnoticed. Sums modulo 2^32 are the same on every mesh.
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    words = lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size) + lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    factor = place * _MULTIPLIER * np.uint32(2) + np.uint32(1)
    return jnp.sum(words.astype(jnp.uint32) * factor, dtype=jnp.uint32)


def checksums(tree) -> dict[str, int]:
    """32 bits for each array, by its path, such as "['vision']['ln_post']['scale']"."""
    groups = defaultdict(dict)  # a program runs on one set of devices
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else ()
        groups[frozenset(devices)][jax.tree_util.keystr(path)] = leaf
    sums = {}
    for leaves in groups.values():
        sums |= zip(leaves, map(int, jax.device_get(_checksums([*leaves.values()]))), strict=True)
    return sums


def differing(tree, stored: Mapping[str, int]) -> list[str]:
    """The paths of arrays that are not what they were when their checksums were stored.

    An array of which none is stored counts as unchanged.
    """
    return [path for path, sum_ in checksums(tree).items() if stored.get(path, sum_) != sum_]
