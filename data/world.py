"""A world of rendered scenes whose captions and hard negatives are true and false by construction.

A scene shows one kind of thing (one to four of it on a coloured tile) or two things, each on a
tile of its own colour, one left of, right of, above or below the other. Things are big or small.
Whatever a caption says is a `Claim`; a hard negative says a changed claim that does not hold.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.english import article, plural
from data.glyphs import GLYPHS, NOUNS
from data.scenes import COLOURS, SIZES, Claim, Thing, pick, render, shuffled
from errors import UserError
from options import passed_on_to

COUNTS = ("", "", "two", "three", "four")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
PREFIXES = ("", "a picture of ", "a scene with ", "this shows ", "we see ")
_JOINTS = ("and", "with", "together with")
_TILES = (" on {article} {colour} tile", " on {colour}")


def holds(claim: Claim, scene: Claim) -> bool:
    """Whether what is claimed is true of the scene."""

    def fits(said: Thing, shown: Thing) -> bool:
        return all(a in ("", b) for a, b in zip(said, shown, strict=True))

    if len(claim.things) == 1:
        return any(fits(claim.things[0], thing) for thing in scene.things)
    for relation, things in (
        (scene.relation, scene.things),
        (INVERSE.get(scene.relation), scene.things[::-1]),
    ):
        if len(things) == 2 and claim.relation in ("", relation):
            if all(map(fits, claim.things, things)):
                return True
    return False


class Wording(NamedTuple):
    """How a claim is put into words; a caption and its negatives share one."""

    prefix: str
    tile: str
    phrase: int
    joint: str

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Wording":
        return cls(pick(rng, PREFIXES), pick(rng, _TILES), pick(rng, (0, 1)), pick(rng, _JOINTS))

    def say(self, claim: Claim) -> str:
        text = self.prefix + self._thing(claim.things[0])
        for thing in claim.things[1:]:
            joint = _RELATION_PHRASES[claim.relation][self.phrase] if claim.relation else self.joint
            text += f" {joint} {self._thing(thing)}"
        return text

    def _thing(self, thing: Thing) -> str:
        noun = thing.noun if thing.count == 1 else plural(thing.noun)
        text = f"{thing.size} {noun}".strip()
        text = f"{COUNTS[thing.count] or article(text)} {text}"
        if not thing.colour:
            return text
        return text + self.tile.format(article=article(thing.colour), colour=thing.colour)


def _changed(claim: Claim, index: int, **fields) -> Claim:
    things = list(claim.things)
    things[index] = things[index]._replace(**fields)
    return claim._replace(things=tuple(things))


def _swap(field: str, claim: Claim) -> list[Claim]:
    if len(claim.things) == 1:
        return []
    first, second = (getattr(thing, field) for thing in claim.things)
    return [_changed(_changed(claim, 0, **{field: second}), 1, **{field: first})]


def _replace(field: str, options, claim: Claim, rng: np.random.Generator) -> list[Claim]:
    """A thing's word changed: to each of few options, or to some of many."""
    some = options if len(options) <= 8 else [pick(rng, options) for _ in range(8)]
    at = [i for i, thing in enumerate(claim.things) if getattr(thing, field)]
    return [_changed(claim, i, **{field: option}) for i in at for option in some]


# Each type of negative as claims that may be false; `nouns` are those of the class split.
_CLAIMS = {
    "swap_things": lambda claim, nouns, rng: [claim._replace(things=claim.things[::-1])],
    "swap_nouns": lambda claim, nouns, rng: _swap("noun", claim),
    "swap_adjectives": lambda claim, nouns, rng: _swap("colour", claim) + _swap("size", claim),
    "replace_adjective": lambda claim, nouns, rng: (
        _replace("colour", tuple(COLOURS), claim, rng) + _replace("size", tuple(SIZES), claim, rng)
    ),
    "replace_noun": lambda claim, nouns, rng: _replace("noun", nouns, claim, rng),
    "replace_relation": lambda claim, nouns, rng: [
        claim._replace(relation=relation) for relation in INVERSE if claim.relation
    ],
}
TYPES = ("reshuffle", *(kind for kind in _CLAIMS if kind != "swap_things"))  # what is scored

_DETERMINERS = frozenset({"a", "an", *COUNTS[2:]})
_AFTER_DETERMINER = frozenset({"picture", "scene", *COLOURS, *SIZES, *GLYPHS, *map(plural, GLYPHS)})


def _reshuffles(caption: str, rng: np.random.Generator) -> Iterator[str]:
    """Permutations that are no sentence, for a determiner stands where none can: they say nothing.

    Without this check a permutation might exchange the two halves of "a cat and a dog".
    """
    words = caption.split()
    for _ in range(16):
        order = shuffled(rng, words)
        pairs = itertools.zip_longest(order, order[1:])
        if any(a in _DETERMINERS and b not in _AFTER_DETERMINER for a, b in pairs):
            yield " ".join(order)


def negatives(
    kind: str, scene: Claim, claim: Claim, wording: Wording, nouns, rng: np.random.Generator
) -> Iterator[str]:
    """Hard negatives of a type, in random order, each false of the scene."""
    if kind == "reshuffle":
        yield from _reshuffles(wording.say(claim), rng)
        return
    for changed in shuffled(rng, _CLAIMS[kind](claim, nouns, rng)):
        if not holds(changed, scene):
            yield wording.say(changed)


def units(
    scene: Claim, claim: Claim, wording: Wording, nouns, rng: np.random.Generator
) -> list[list[str]]:
    """[unit, foil] of parts of a claim in random order: each thing, both things, their relation.

    A foil changes one part of its unit and is false of the scene (CS-CLIP).
    """
    parts = [Claim((thing,), "") for thing in claim.things]
    if len(claim.things) == 2:
        parts.append(Claim(claim.things, ""))
        if claim.relation:
            bare = tuple(thing._replace(colour="", size="") for thing in claim.things)
            parts.append(Claim(bare, claim.relation))
    wording = wording._replace(prefix="")
    pairs = []
    for part in shuffled(rng, parts):
        kinds = (kind for kind in shuffled(rng, TYPES) if kind.startswith("replace_"))
        foils = (negatives(kind, scene, part, wording, nouns, rng) for kind in kinds)
        foil = next(itertools.chain.from_iterable(foils), None)
        if foil is not None:
            pairs.append([wording.say(part), foil])
    return pairs


@dataclasses.dataclass(frozen=True)
class Example:
    """What lies behind a record: the scene, the claim its caption makes, and a negative a type.

    `negatives` maps those of TYPES that apply to a text each; all are false of the scene.
    """

    scene: Claim
    claim: Claim
    caption: str
    negatives: dict[str, str]
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class World:
    """A data source of rendered scenes, each a pure function of (seed, part, index).

    Attributes:
      length: number of scenes.
      part: "train" or "test": scenes drawn independently.
      nouns: class split, "all", "seen" or "unseen"; replaced nouns come from the same split.
      size: side of an image, pixels.
      pairs: share of the scenes that show two things.
      colours: share of the captions that say the colours of the tiles.
      sizes: share of the captions that say whether things are big or small.
      relations: share of the captions of two things that say how the two stand to each other. In
        the others their order means nothing, as in most captions that CLIP saw.
      told_first: share of the captions of two things that are told from the left or upper one. At
        0.5 neither the order of the things nor the word between them says by itself where a thing
        is, only both together, which takes a model long to find out (docs/results.md).
      num_negatives: hard negatives a record has, of as many types as possible.
      paraphrases: other captions that a record has, true of its scene (texts of role captions).
      units: whether a record has units of its caption with a foil each (texts of role units).
      types: of these negatives, of TYPES and swap_things: the things with all that is said of them.
      seed: another seed is another world of scenes.
    """

    length: int = 100_000
    part: str = "train"
    nouns: str = "all"
    size: int = 64
    pairs: float = 0.75
    colours: float = 0.75
    sizes: float = 0.5
    relations: float = 1.0
    told_first: float = 0.5
    num_negatives: int = 4
    types: tuple[str, ...] = TYPES
    paraphrases: int = 0
    units: bool = False
    seed: int = 0

    def __post_init__(self):
        for name, known in (("part", ("train", "test")), ("nouns", tuple(NOUNS))):
            if getattr(self, name) not in known:
                raise UserError(f"world has no {name} {getattr(self, name)!r}: use one of {known}")
        for name, least in (("length", 1), ("size", 32), ("num_negatives", 0), ("paraphrases", 0)):
            if getattr(self, name) < least:
                raise UserError(f"world's {name} is {getattr(self, name)}, must be >= {least}")
        known = ("reshuffle", *_CLAIMS)
        for kind in self.types:
            if kind not in known:
                raise UserError(f"world has no negatives of type {kind!r}: use one of {known}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        """The record: image uint8 [size, size, 3], one caption, its negatives, a key."""
        scene, claim, wording, rng = self._draw(index)
        record = {
            "image": render(scene, self.size, rng),
            "captions": [wording.say(claim)],
            "negatives": self._negatives(scene, claim, wording, rng),
            "key": f"world {self.part} scene {index}",
        }
        texts = {}
        if self.paraphrases:
            texts["captions"] = [self._others(scene, record["captions"], rng)]
        if self.units:
            texts["units"] = [units(scene, claim, wording, NOUNS[self.nouns], rng)]
        return record | ({"texts": texts} if texts else {})

    def captions(self, index: int) -> list[str]:
        """The record's captions, without rendering its scene."""
        _, claim, wording, _ = self._draw(index)
        return [wording.say(claim)]

    def scene(self, index: int) -> Claim:
        """What a record shows, without rendering it."""
        return self._draw(index)[0]

    def image(self, index: int) -> np.ndarray:
        """A record's image alone: uint8 [size, size, 3]."""
        scene, _, _, rng = self._draw(index)
        return render(scene, self.size, rng)

    def example(self, index: int) -> Example:
        """A record's scene, with one negative of every type that applies, for evaluation."""
        scene, claim, wording, rng = self._draw(index)
        image = render(scene, self.size, rng)
        first = {kind: next(self._of(kind, scene, claim, wording, rng), "") for kind in TYPES}
        return Example(
            scene, claim, wording.say(claim), {k: text for k, text in first.items() if text}, image
        )

    def _draw(self, index: int) -> tuple[Claim, Claim, Wording, np.random.Generator]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of a world of {self.length}")
        rng = np.random.default_rng((self.seed, self.part == "test", index))
        nouns = NOUNS[self.nouns]
        pair = rng.random() < self.pairs
        count = 1 if pair else pick(rng, (1, 2, 3, 4))
        chosen = zip(
            _distinct(rng, nouns), _distinct(rng, tuple(COLOURS)), strict=True
        )  # two things always differ in noun and in colour
        things = tuple(Thing(n, count, c, pick(rng, tuple(SIZES))) for n, c in chosen)
        scene = Claim(things, pick(rng, tuple(INVERSE))) if pair else Claim(things[:1], "")
        return scene, self._claim(scene, rng), Wording.draw(rng), rng

    def _claim(self, scene: Claim, rng: np.random.Generator) -> Claim:
        """A claim true of the scene: some attributes left out, told from one thing or the other."""
        things, relation = scene
        if rng.random() < 1 - self.colours:
            things = tuple(thing._replace(colour="") for thing in things)
        if rng.random() < 1 - self.sizes:
            things = tuple(thing._replace(size="") for thing in things)
        first = relation in ("left of", "above")
        if relation and rng.random() < (1 - self.told_first if first else self.told_first):
            things, relation = things[::-1], INVERSE[relation]
        if self.relations < 1 and rng.random() >= self.relations:
            relation = ""
        return Claim(things, relation)

    def _others(self, scene: Claim, captions: list[str], rng: np.random.Generator) -> list[str]:
        """`paraphrases` captions that differ from each other and from these, if so many turn up."""
        said = list(captions)
        for _ in range(4 * self.paraphrases):
            text = Wording.draw(rng).say(self._claim(scene, rng))
            if text not in said and len(said) < len(captions) + self.paraphrases:
                said.append(text)
        return said[len(captions) :]

    def _of(self, kind, scene, claim, wording, rng) -> Iterator[str]:
        return negatives(kind, scene, claim, wording, NOUNS[self.nouns], rng)

    def _negatives(self, scene, claim, wording, rng) -> list[str]:
        """`num_negatives` different texts, of one type after another, in random order."""
        kinds = [self._of(kind, scene, claim, wording, rng) for kind in shuffled(rng, self.types)]
        texts = []
        while kinds and len(texts) < self.num_negatives:
            kind = kinds.pop(0)
            text = next((text for text in kind if text not in texts), "")
            if text:
                texts.append(text)
                kinds.append(kind)
        return texts


def _distinct(rng: np.random.Generator, options) -> tuple:
    first = int(rng.random() * len(options))
    step = 1 + int(rng.random() * (len(options) - 1))
    return options[first], options[(first + step) % len(options)]


@passed_on_to(World)
def load(root: str = "", **options) -> World:
    """The world as data/sources.py finds it; nothing is read from `root`."""
    return World(**options)


def picture(noun: int, k: int, size: int, seed: int) -> np.ndarray:
    """The k-th picture of a class: one of it, the tile's colour and the size in turn."""
    colour, extent = list(COLOURS)[(noun + k) % len(COLOURS)], list(SIZES)[k % len(SIZES)]
    scene = Claim((Thing(NOUNS["all"][noun], 1, colour, extent),), "")
    return render(scene, size, np.random.default_rng((seed, 2, noun, k)))


def apart(examples, count: int) -> list[Example]:
    """The first `count` examples such that every caption is false of every other's scene."""
    kept: list[Example] = []
    for example in examples:
        if len(kept) == count:
            break
        if not any(
            holds(example.claim, other.scene) or holds(other.claim, example.scene) for other in kept
        ):
            kept.append(example)
    return kept
