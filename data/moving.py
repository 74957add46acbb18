"""Short clips of things that move, rendered as they are needed: the video of the embedded world.

A class is a thing with an action, such as "a cat growing". Actions come in pairs: in one the thing
changes once, from a pose to another; in the other it goes back and forth between the two. Each pose
is shown in half of the frames, so no frame tells the two of a pair apart, nor do all frames without
their order. (Left and right would not do: to attention that takes the frames before and after
alike, as FROSTER's does, a clip and its reverse are the same.)
"""

import dataclasses
import functools

import numpy as np

from data.english import article
from data.glyphs import NOUNS, sprite
from data.world import COLOURS, PREFIXES, background

# Once, back and forth: what changes between two poses.
PAIRS = {
    ("appearing", "blinking"): "tile",
    ("arriving", "peeking"): "glyph",
    ("crossing", "bouncing"): "corner",
    ("growing", "pulsing"): "size",
}
_THINGS = 12  # of each class split
_TILE, _GLYPH, _SMALL = 0.48, 0.42, 0.18  # sides of a tile and a glyph, shares of a frame's


def _classes(nouns: str) -> list[tuple[str, str]]:
    """(thing, action) of a class split: each thing has the two actions of a pair."""
    step = len(NOUNS[nouns]) // _THINGS
    things = NOUNS[nouns][::step][:_THINGS]
    pairs = list(PAIRS)
    return [(thing, action) for i, thing in enumerate(things) for action in pairs[i % len(pairs)]]


@dataclasses.dataclass(frozen=True)
class Moving:
    """A source of rendered clips, each a pure function of (seed, part, index).

    Attributes:
      length: number of clips.
      part: "train" or "test": clips drawn independently.
      nouns: class split of data/glyphs.py, "seen" or "unseen": the things of the classes.
      size: side of a frame, pixels.
      num_frames: T, even.
      seed: another seed is another set of clips.
    """

    length: int = 10_000
    part: str = "train"
    nouns: str = "seen"
    size: int = 48
    num_frames: int = 8
    seed: int = 0

    def __post_init__(self):
        for name, known in (("part", ("train", "test")), ("nouns", ("seen", "unseen"))):
            if getattr(self, name) not in known:
                raise ValueError(f"moving has no {name} {getattr(self, name)!r}: use {known}")
        for name, least in (("length", 1), ("size", 32), ("num_frames", 4)):
            if getattr(self, name) < least:
                raise ValueError(f"moving's {name} is {getattr(self, name)}, must be >= {least}")
        if self.num_frames % 2:
            raise ValueError(f"moving's num_frames is {self.num_frames}, must be even")

    @property
    def pipeline(self) -> str:
        return "video"

    @functools.cached_property
    def _class_list(self) -> list[tuple[str, str]]:
        return _classes(self.nouns)

    @property
    def classes(self) -> list[str]:
        return [f"{article(thing)} {thing} {action}" for thing, action in self._class_list]

    @property
    def descriptions(self) -> list[str]:
        return [f"{action} {thing}" for thing, action in self._class_list]

    @property
    def templates(self) -> list[str]:
        return [prefix + "{}" for prefix in PREFIXES]

    @property
    def twins(self) -> list[int]:
        """For each class the one with the same thing that no single frame tells from it."""
        return [label ^ 1 for label in range(len(self._class_list))]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        """The record: video uint8 [T, size, size, 3], label, key."""
        rng = np.random.default_rng((self.seed, self.part == "test", self.nouns == "unseen", index))
        label = int(rng.random() * len(self._class_list))
        return {
            "video": self._render(*self._class_list[label], rng),
            "label": label,
            "key": f"moving {self.part} {self.nouns} clip {index}",
        }

    def _render(self, thing: str, action: str, rng: np.random.Generator) -> np.ndarray:
        pair = next(pair for pair in PAIRS if action in pair)
        colour = list(COLOURS.values())[int(rng.random() * len(COLOURS))]
        empty = background(self.size, rng)
        at = (rng.random(), rng.random())
        poses = (0, 1) if rng.random() < 0.5 else (1, 0)
        half = self.num_frames // 2
        steps = np.repeat(poses, half) if action == pair[0] else np.tile(poses, half)
        drawn = [self._pose(thing, PAIRS[pair], step, at, colour, empty.copy()) for step in (0, 1)]
        return np.stack([drawn[step] for step in steps])

    def _pose(self, thing: str, what: str, step: int, at, colour, image) -> np.ndarray:
        """Draws one of the two poses: a tile at a place (shares of the room) with its glyph."""
        tile = round(_TILE * self.size)
        if what == "corner":  # of the diagonal that the place is nearer to
            at = (step, step if (at[0] < 0.5) == (at[1] < 0.5) else 1 - step)
        top, left = (round((self.size - tile) * share) for share in at)
        if what == "tile" and not step:
            return image
        image[top : top + tile, left : left + tile] = colour
        if what == "glyph" and not step:
            return image
        small = what == "size" and not step
        times, keep = sprite(thing, round((_SMALL if small else _GLYPH) * self.size))
        height, width = keep.shape[:2]
        y, x = top + (tile - height) // 2, left + (tile - width) // 2
        under = image[y : y + height, x : x + width]
        under[:] = (under * keep + times + 127) // 255
        return image


def load(root: str = "", **options) -> Moving:
    """See Moving; root is not used."""
    return Moving(**options)
