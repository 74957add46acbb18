"""Several sources as one, each with its share of the records."""

import math

import numpy as np

from data import sources
from errors import UserError

_PERIOD = 10_000  # records after which the pattern of sources repeats; shares are exact to 1 / it


def load(root, sources, length=None):
    """Records drawn from several sources by weight; which one a record is of is fixed.

    Args:
      root: given to the sources that name none of their own.
      sources: {name: {source, weight, root, and options of the source}}; the weights are shares.
        With negatives=False a part's records have none, wherever those of the others are from: the
        loss's terms on negatives leave them out, and a teacher holds them (docs/results.md).
      length: records of an epoch; by default as many as show every source whole at least once.

    Raises:
      UserError: as the sources do; no weight above 0, sources of different kinds, or all of them
        without negatives.
    """
    parts, weights = zip(
        *(_open(name, root, dict(options)) for name, options in sources.items()), strict=True
    )
    if all(isinstance(part, _WithoutNegatives) for part in parts):
        raise UserError("every part of data.options.sources has negatives=False; leave it out")
    return Mixture(parts, weights, length)


def _open(name: str, root, options: dict):
    weight = options.pop("weight", None)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise UserError(f"data.options.sources.{name}.weight is {weight!r}; give a number above 0")
    if "source" not in options:
        raise UserError(f"data.options.sources.{name} names no source")
    kind, root = options.pop("source"), options.pop("root", root)
    with_negatives = options.pop("negatives", True)
    if not isinstance(with_negatives, bool):
        raise UserError(
            f"data.options.sources.{name}.negatives is {with_negatives!r}; give False where its"
            " records are to have none"
        )
    part = sources.load(kind, root, **{"split": "all"} | options)
    return part if with_negatives else _WithoutNegatives(part), float(weight)


class _WithoutNegatives:
    """Records of a source that are to have no negatives."""

    def __init__(self, source):
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i):
        return self._source[i] | {"negatives": None}

    def without_image(self, i):
        return sources.without_image(self._source, i) | {"negatives": None}

    def __getattr__(self, name):
        if name == "pipeline" and hasattr(self._source, name):
            return self._source.pipeline
        raise AttributeError(name)


class Mixture:
    """Records of several sources, a fixed share of each in every stretch of records."""

    def __init__(self, parts, weights, length=None):
        kinds = {getattr(part, "pipeline", "pipeline") for part in parts}
        if len(kinds) > 1:
            raise UserError(f"sources of the kinds {', '.join(sorted(kinds))} do not mix")
        self._parts = parts
        shares = np.array(weights) / sum(weights)
        # Slot by slot the source that is furthest behind its share, as in apportionment.
        behind, self._counts = np.zeros(len(parts)), np.zeros(len(parts), np.int64)
        self._pattern, self._ranks = np.empty((2, _PERIOD), np.int64)
        for slot in range(_PERIOD):
            behind += shares
            part = np.argmax(behind)
            behind[part] -= 1
            self._pattern[slot], self._ranks[slot] = part, self._counts[part]
            self._counts[part] += 1
        if not self._counts.all():
            raise UserError(f"a weight below 1 in {_PERIOD} of the others draws nothing")
        whole = max(math.ceil(len(part) / share) for part, share in zip(parts, shares, strict=True))
        self._length = length or whole

    def __len__(self):
        return self._length

    def _locate(self, i):
        """The source of a record, and its index there."""
        period, slot = divmod(i, _PERIOD)
        part = self._pattern[slot]
        index = period * int(self._counts[part]) + int(self._ranks[slot])
        return self._parts[part], index % len(self._parts[part])

    def __getitem__(self, i):
        part, index = self._locate(i)
        return part[index]

    def without_image(self, i):
        part, index = self._locate(i)
        return sources.without_image(part, index)

    def __getattr__(self, name):
        # What the pipeline asks of a source holds of a mixture where it holds of every part.
        if name == "num_negatives":
            parts = [part for part in self._parts if not isinstance(part, _WithoutNegatives)]
            return min((getattr(part, name, 0) for part in parts), default=0)
        if name == "pipeline" and hasattr(self._parts[0], name):
            return self._parts[0].pipeline
        raise AttributeError(name)
