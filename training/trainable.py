"""What learns: which parameters the optimizer sees, and in what form.

A Trainable splits a model's parameters into a tree that learns and one that does not
(models/parameters.py joins them again). It stands between parameters and optimizer: what does not
learn has no moments, no weight decay and no gradient. It knows paths, not models.
"""

import dataclasses
import difflib
import fnmatch
import math
import re
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import meta

from errors import UserError
from models import parameters

LAYERS = "layers"  # the logical name of the axis that a scan over layers stacks parameters along


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one parameter learns.

    Attributes:
      stacked: 1 for a parameter stacked over layers, which are its first axis; else 0.
      frozen_layers: how many of the first layers do not learn.
      rank: of the product that learns in its place (LoRA); 0: it learns itself.
      scale: of the product, alpha / rank.
    """

    stacked: int = 0
    frozen_layers: int = 0
    rank: int = 0
    scale: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Trainable:
    """Which parameters learn; see choose_trainable().

    Attributes:
      rules: by path, None for a parameter that does not learn. The whole is None where all do.
    """

    rules: Mapping[str, Rule | None] | None = None

    def frozen_layers(self, stack: str) -> int:
        """Of the stack of layers at that path, how many of the first learn nothing at all."""
        rules = (self.rules or {}).items()
        of_stack = [rule for path, rule in rules if rule and path.startswith(f"{stack}/")]
        return min((rule.frozen_layers for rule in of_stack), default=0)

    def split(self, params, key: jax.Array):
        """Parts parameters in those that learn and those that do not.

        Args:
          params: of the model, in Linen's boxes or not.
          key: of the first factors of LoRA, normal with variance 1 / inputs; the second are zero.

        Returns:
          (learned, frozen), trees for models.parameters.join().
        """
        if self.rules is None:
            return params, {}
        learned, frozen = {}, {}
        for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
            rule = self.rules[path]
            if rule is None:
                frozen[path] = leaf
                continue
            if rule.frozen_layers:
                first, leaf = _cut(leaf, rule.frozen_layers)
                frozen[f"{path}/{parameters.FROZEN_LAYERS}"] = first
                path = f"{path}/{parameters.LEARNED_LAYERS}"
            if rule.rank:
                seed = jax.random.fold_in(key, zlib.crc32(path.encode()))
                a, b, scale = _factors(leaf, rule, seed)
                frozen |= {f"{path}/{parameters.BASE}": leaf}
                frozen |= {f"{path}/{parameters.LORA_SCALE}": scale}
                learned |= {f"{path}/{parameters.LORA_A}": a, f"{path}/{parameters.LORA_B}": b}
            else:
                learned[path] = leaf
        return tuple(traverse_util.unflatten_dict(tree, sep="/") for tree in (learned, frozen))

    def moving(self, params, low_rank: bool = True):
        """The parameters whose values change: what a teacher that follows them must keep.

        Args:
          params: of the model, whole.
          low_rank: False leaves those out whose changes LoRA keeps apart from their first values.
        """
        if self.rules is None:
            return params
        moving = {}
        for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
            rule = self.rules[path]
            if rule is None or (rule.rank and not low_rank):
                continue
            if rule.frozen_layers:
                path = f"{path}/{parameters.LEARNED_LAYERS}"
                leaf = _cut(leaf, rule.frozen_layers)[1]
            moving[path] = leaf
        return traverse_util.unflatten_dict(moving, sep="/")


ALL = Trainable()


def choose_trainable(
    params,
    learn: Sequence[str] = (),
    *,
    rank: int = 0,
    alpha: float | None = None,
    where: Sequence[str] = ("*blocks/*/kernel",),
) -> Trainable:
    """What learns by patterns of paths, such as 'text/*'.

    A pattern with ! in front takes back what those before it say. One with [-n:] behind it means
    the last n layers alone, of parameters that are stacked over layers.

    Args:
      params: shapes of the model's parameters, in Linen's boxes.
      learn: of the parameters that learn; empty: all, or with LoRA none beside it.
      rank: of the products that learn in the place of matrices (LoRA); 0: none do.
      alpha: the products count alpha / rank; None: 1.
      where: patterns of these matrices.

    Raises:
      UserError: a pattern that matches nothing, or what cannot learn in that form.
    """
    if not learn and not rank:
        return ALL
    leaves = traverse_util.flatten_dict(params, sep="/")
    rules = dict.fromkeys(leaves)
    for path, first in _match(leaves, learn, "learn").items():
        rules[path] = Rule(_stacked(leaves[path]), first)
    if rank:
        for path, first in _match(leaves, where, "lora.where").items():
            if rules[path] is not None:
                raise UserError(
                    f"config.train: {path} would learn both itself and by LoRA; take it out of "
                    f"learn (a pattern '!{path}' behind the others does) or out of lora.where"
                )
            scale = 1.0 if alpha is None else alpha / rank
            _check_rank(path, leaves[path], rank)
            rules[path] = Rule(_stacked(leaves[path]), first, rank, scale)
    if not any(rules.values()):
        raise UserError("config.train: nothing would learn")
    return Trainable(rules)


def _match(leaves: Mapping, patterns: Sequence[str], key: str) -> dict[str, int]:
    """Path -> how many of its first layers do not learn, of what the patterns match."""
    matched = {}
    # A flag's a,b arrives as the one string "a,b".
    for written in (part.strip() for entry in patterns for part in entry.split(",")):
        off, pattern, last = re.fullmatch(r"(!?)(.*?)(?:\[-(\d+):\])?", written).groups()
        paths = [path for path in leaves if fnmatch.fnmatchcase(path, pattern)]
        if not paths:
            near = difflib.get_close_matches(pattern, leaves, n=1, cutoff=0)[0]
            raise UserError(
                f"config.train.{key}: no parameter matches '{written}'; the nearest is {near}, "
                f"and there are {_some(leaves)}"
            )
        for path in paths:
            if off:
                matched.pop(path, None)
            else:
                matched[path] = _first_layers(path, leaves[path], written, last, key)
    return matched


def _first_layers(path: str, leaf, written: str, last: str | None, key: str) -> int:
    """Layers before the last ones of a stacked parameter; 0 where the pattern says no number."""
    if last is None:
        return 0
    layers = _value(leaf).shape[0] if _stacked(leaf) else None
    if layers is None:
        raise UserError(
            f"config.train.{key}: '{written}' matches {path}, which is not stacked over layers: "
            "let it match stacks alone, as text/*blocks/* does"
        )
    if not 0 < int(last) <= layers:
        raise UserError(f"config.train.{key}: '{written}', but {path} has {layers} layers")
    return layers - int(last)


def _check_rank(path: str, leaf, rank: int) -> None:
    shape = _value(leaf).shape[_stacked(leaf) :]
    most = 0
    if len(shape) > 1:
        inputs = parameters.input_axes(shape)
        most = min(math.prod(shape[:inputs]), math.prod(shape[inputs:]))
    if not 0 < rank <= most:
        raise UserError(
            f"config.train.lora: a product of rank {rank} cannot stand for {path} of shape {shape}"
            f"{'' if most else ', which is no matrix'}: change rank or where"
        )


def _some(paths: Mapping) -> str:
    shown = list(paths)[:8]
    return ", ".join(shown) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")


def _value(leaf):
    return leaf.value if isinstance(leaf, meta.Partitioned) else leaf


def _names(leaf) -> tuple:
    return leaf.names if isinstance(leaf, meta.Partitioned) else (None,) * leaf.ndim


def _stacked(leaf) -> int:
    """1 where the first axis is that of the layers, else 0."""
    return int(_names(leaf)[:1] == (LAYERS,))


def _cut(leaf, layers: int):
    """The first layers of a stacked parameter, and the others."""
    return (
        jax.tree.map(lambda x: x[:layers], leaf),
        jax.tree.map(lambda x: x[layers:], leaf),
    )


def _factors(leaf, rule: Rule, key: jax.Array):
    """LoRA's a, b and scale for a matrix or a stack of them, boxed as it is."""
    value, names, stacked = _value(leaf), _names(leaf), rule.stacked
    shape = value.shape[stacked:]
    inputs = stacked + parameters.input_axes(shape)

    def box(array, names):
        return array if leaf is value else leaf.replace(value=array, names=names)

    a = jax.random.normal(key, (*value.shape[:inputs], rule.rank), value.dtype)
    a = a * math.prod(value.shape[stacked:inputs]) ** -0.5
    b = jnp.zeros((*value.shape[:stacked], rule.rank, *value.shape[inputs:]), value.dtype)
    scale = jnp.full(value.shape[:stacked], rule.scale, value.dtype)
    return (
        box(a, (*names[:inputs], None)),
        box(b, (*names[:stacked], None, *names[inputs:])),
        box(scale, names[:stacked]),
    )
