"""The hard negatives that a run trains on: those of the records, of rules and of written folders.

Where each comes from and of what type it is are drawn by weights, anew each epoch.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from captions import types
from captions.rules import Vocabulary
from captions.sentences import normalise, parse, words_of
from captions.written import Written
from data import pipeline, sources
from errors import UserError

ANY = ""  # the type of negatives that do not say theirs


class Origin(Protocol):
    """Where negatives come from; picklable."""

    def candidates(
        self, record: dict, i: int, rng: np.random.Generator
    ) -> Mapping[str, Iterable[str]]:
        """Negatives for caption i of a record by type, best first, some of them maybe unfit."""


class FromRecords:
    """The negatives that the records bring, of no type."""

    def candidates(self, record, i, rng):
        texts = pipeline.negatives_of(record, i)
        return {ANY: [texts[k] for k in rng.permutation(len(texts))]}


@dataclasses.dataclass(frozen=True)
class FromRules:
    """Negatives by rule; no word that replaces another is in a caption of the record."""

    vocabulary: Vocabulary
    types: tuple[str, ...]

    def candidates(self, record, i, rng):
        sentence = parse(record["captions"][i])
        avoid = {word for caption in record["captions"] for word in words_of(caption)}
        return {
            name: types.load(name).rule(sentence, self.vocabulary, avoid, rng)
            for name in self.types
        }


class FromFolder:
    """Negatives that `python -m captions.generate` wrote, see captions/written.py."""

    def __init__(self, written: Written):
        self._written = written

    def candidates(self, record, i, rng):
        row = self._written.find(sources.image_name(record), record["captions"][i])
        by_type: dict[str, list[str]] = {}
        for negative in row["negatives"] if row else ():
            by_type.setdefault(negative["type"], []).append(negative["text"])
        return {
            name: [texts[k] for k in rng.permutation(len(texts))] for name, texts in by_type.items()
        }


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Draws K = num_negatives hard negatives of a caption; picklable, random only through rng.

    Attributes:
      origins: with their weights.
      type_weights: name -> weight. Of K slots a type has K times its share, rounded up or down by
        chance; slots are in the order of the types, so that with as many slots as types of equal
        weight slot k is always type k.
      fill: fill a slot for which there is nothing from elsewhere and count it; otherwise the slot
        is invalid, as in CE-CLIP.
    """

    origins: tuple[tuple[Origin, float], ...]
    type_weights: Mapping[str, float]
    num_negatives: int = 4
    fill: bool = True

    def __post_init__(self):
        if self.num_negatives < 1:
            raise UserError(f"num_negatives is {self.num_negatives}, it must be at least 1")
        for weights in (self.type_weights.values(), [weight for _, weight in self.origins]):
            if min(weights, default=-1) < 0 or not any(weights):
                raise UserError("weights of negatives must be at least 0, and one above it")

    def __call__(
        self, record: dict, i: int, rng: np.random.Generator
    ) -> tuple[list[str], list[bool], int]:
        """Negatives for caption i of a record.

        Returns:
          texts [K], '' where there is none; valid [K]; how many slots were filled from elsewhere.
          Valid texts differ from the caption and from each other (case and spaces aside).
        """
        candidates = [
            {name: iter(texts) for name, texts in origin.candidates(record, i, rng).items()}
            for origin, _ in self.origins
        ]
        taken = {normalise(record["captions"][i])}
        texts, filled = [], 0
        for origin, name in self._slots(rng):
            of_origin = candidates[origin]
            text = _first_new(of_origin.get(name, of_origin.get(ANY, ())), taken)
            if not text and self.fill:
                text = self._elsewhere(candidates, origin, taken, rng)
                filled += bool(text)
            texts.append(text)
        return texts, [bool(text) for text in texts], filled

    def _slots(self, rng: np.random.Generator) -> Iterator[tuple[int, str]]:
        """The origin and the type that each slot is to have."""
        names = list(self.type_weights)
        of_types = shares(list(self.type_weights.values()), self.num_negatives, rng)
        of_origins = shares([weight for _, weight in self.origins], self.num_negatives, rng)
        return zip(rng.permutation(of_origins), [names[t] for t in of_types], strict=True)

    def _elsewhere(self, candidates, origin: int, taken: set[str], rng) -> str:
        """From any type of an origin, and then of the others; '' if there is nothing."""
        others = [k for k, (_, weight) in enumerate(self.origins) if k != origin and weight]
        names = [name for name, weight in self.type_weights.items() if weight]
        for k in (origin, *rng.permutation(others)):
            for name in rng.permutation([*names, ANY]):
                if text := _first_new(candidates[k].get(name, ()), taken):
                    return text
        return ""


def of_rules(captions: Sequence[str], names: Sequence[str] = types.DEGLA, **options) -> Mixture:
    """Rules alone, each type as often, with words of these captions; options as of Mixture."""
    rules = FromRules(Vocabulary.from_captions(captions), tuple(names))
    return Mixture(((rules, 1.0),), dict.fromkeys(names, 1.0), **options)


def shares(weights: Sequence[float], count: int, rng: np.random.Generator) -> np.ndarray:
    """Which of the weights each of `count` slots goes to: int [count], ascending.

    Each has count * its share of the slots, rounded up or down so that the mean is exact
    (systematic sampling in a random order).
    """
    order = rng.permutation(len(weights))
    edges = np.cumsum(np.asarray(weights, float)[order])
    points = (rng.random() + np.arange(count)) * (edges[-1] / count)
    at = np.searchsorted(edges, points, side="right")
    # Rounding may leave the last point at the very end, which belongs to the last weight above 0.
    return np.sort(order[np.minimum(at, np.flatnonzero(np.asarray(weights)[order])[-1])])


def _first_new(candidates: Iterable[str], taken: set[str]) -> str:
    for text in candidates:
        if normalise(text) not in taken:
            taken.add(normalise(text))
            return text
    return ""


def open_negatives(data, source) -> Callable | None:
    """What draws the negatives that config.data asks for; None where the records bring them all.

    Raises:
      UserError: records or a folder without negatives, unknown types or origins.
    """
    weights = parse_weights("negatives", data.negatives.split(","))
    type_weights = parse_weights("negative_types", data.negative_types)
    for name in type_weights:
        types.load(name)
    if list(weights) == ["records"]:
        pipeline.check_negatives(source)
        return None
    return Mixture(
        tuple((open_origin(name, source, tuple(type_weights)), w) for name, w in weights.items()),
        type_weights,
        num_negatives=data.num_negatives,
        fill=data.fill_negatives,
    )


def parse_weights(key: str, items: Sequence[str]) -> dict[str, float]:
    """name or name=weight of each item -> weight, which is 1 where it is not given."""
    weights = {}
    for item in items:
        name, equals, weight = item.strip().rpartition("=")
        try:
            weights[name if equals else weight] = float(weight) if equals else 1.0
        except ValueError:
            raise UserError(f"config.data.{key} has {item!r}: give name or name=weight") from None
    return weights


def open_origin(name: str, source, names: Sequence[str]) -> Origin:
    """What writes negatives of these types: 'records', 'rules', or a folder of captions.generate.

    Raises:
      UserError: a type without a rule, or a folder without negatives for the source's captions.
    """
    if name == "records":
        return FromRecords()
    if name == "rules":
        if without := [kind for kind in names if types.load(kind).rule is None]:
            raise UserError(f"there is no rule for the types {', '.join(without)}")
        return FromRules(Vocabulary.from_captions(sources.all_captions(source)), tuple(names))
    try:
        written = Written(name)
    except UserError as error:
        raise UserError(
            f"config.data.negatives names {name!r}; give records or rules, or a folder: {error}"
        ) from None
    origin = FromFolder(written)
    if not any(_has_row(written, sources.without_image(source, i)) for i in range(len(source))):
        raise UserError(f"{name} has no negatives for any caption of the data: written for it?")
    return origin


def _has_row(written: Written, record: dict) -> bool:
    image = sources.image_name(record)
    return any(written.find(image, caption) for caption in record["captions"])
