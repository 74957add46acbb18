"""Captions against hard negatives on photographs: the skill is the type of the negative."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from captions.mixture import Origin
from captions.sentences import normalise
from teaching.base import Item, Task


@dataclasses.dataclass(frozen=True)
class Captions(Task):
    """A task for a CLIP student: of each photograph and type one caption that it applies to.

    Attributes:
      source: the photographs, records of data/.
      origin: writes the negatives.
      types: of the negatives.
      seed: another seed is another choice among a photograph's captions.
    """

    source: Any
    origin: Origin
    types: Sequence[str]
    seed: int = 0
    name: str = "captions"

    def items(self, split: str = "all") -> list[Item]:
        items = []
        for index, skill in itertools.product(range(len(self.source)), self.types):
            record, rng = self.source[index], np.random.default_rng((self.seed, index))
            for i in rng.permutation(len(record["captions"])):
                text = negative(self.origin, record, int(i), skill, rng)
                if text is not None:
                    options = record["captions"][i], text
                    key = f"{record['key']}, {skill}"
                    items.append(Item(key, skill, "", options[0], options, image=record["image"]))
                    break
        return items


def negative(origin: Origin, record: dict, i: int, skill: str, rng) -> str | None:
    """A hard negative of a type for caption i of a record, or None where there is none."""
    caption = normalise(record["captions"][i])
    texts = origin.candidates(record, i, rng).get(skill, ())
    return next((text for text in texts if normalise(text) != caption), None)
