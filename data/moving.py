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
from data.scenes import COLOURS, background
from data.world import PREFIXES
from errors import UserError
from options import passed_on_to

# Once, back and forth: what changes between two poses.
PAIRS = {
    ("appearing", "blinking"): "tile",
    ("arriving", "peeking"): "glyph",
    ("joining", "visiting"): "second",
    ("growing", "pulsing"): "size",
}
_TILE, _GLYPH, _SMALL = 0.48, 0.44, 0.28  # sides of a tile and a glyph, shares of a frame's


def _classes(nouns: str, things: int) -> list[tuple[str, str]]:
    """(thing, action) of a class split: each thing has the two actions of a pair."""
    step = len(NOUNS[nouns]) // things
    names = NOUNS[nouns][::step][:things]
    pairs = list(PAIRS)
    return [(name, action) for i, name in enumerate(names) for action in pairs[i % len(pairs)]]


@dataclasses.dataclass(frozen=True)
class Moving:
    """A source of rendered clips, each a pure function of (seed, part, index).

    Attributes:
      length: number of clips.
      part: "train" or "test": clips drawn independently.
      nouns: class split of data/glyphs.py, "seen" or "unseen": the things of the classes.
      things: how many of them; there are two classes of each.
      size: side of a frame, pixels.
      num_frames: T, even.
      seed: another seed is another set of clips.
    """

    length: int = 10_000
    part: str = "train"
    nouns: str = "seen"
    things: int = 12
    size: int = 48
    num_frames: int = 8
    seed: int = 0

    def __post_init__(self):
        for name, known in (("part", ("train", "test")), ("nouns", ("seen", "unseen"))):
            if getattr(self, name) not in known:
                raise UserError(f"moving has no {name} {getattr(self, name)!r}: use {known}")
        for name, least in (("length", 1), ("things", 1), ("size", 32), ("num_frames", 4)):
            if getattr(self, name) < least:
                raise UserError(f"moving's {name} is {getattr(self, name)}, must be >= {least}")
        if self.things > len(NOUNS[self.nouns]):
            raise UserError(
                f"moving's things is {self.things}, but {len(NOUNS[self.nouns])} are {self.nouns}"
            )
        if self.num_frames % 2:
            raise UserError(f"moving's num_frames is {self.num_frames}, must be even")

    @property
    def pipeline(self) -> str:
        return "video"

    @functools.cached_property
    def _class_list(self) -> list[tuple[str, str]]:
        return _classes(self.nouns, self.things)

    @property
    def classes(self) -> list[str]:
        return [f"{article(thing)} {thing} {action}" for thing, action in self._class_list]

    @property
    def descriptions(self) -> list[str]:
        return [f"{article(thing)} {thing}" for thing, _ in self._class_list]

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
        drawn = self._poses(thing, PAIRS[pair], rng)
        poses = (0, 1) if rng.random() < 0.5 else (1, 0)
        half = self.num_frames // 2
        steps = np.repeat(poses, half) if action == pair[0] else np.tile(poses, half)
        return np.stack([drawn[step] for step in steps])

    def still(self, index: int) -> tuple[np.ndarray, int]:
        """A frame that shows the thing, uint8 [size, size, 3], and the label of its clip."""
        rng = np.random.default_rng((self.seed, self.part == "test", self.nouns == "unseen", index))
        label = int(rng.random() * len(self._class_list))
        thing, action = self._class_list[label]
        what = next(what for pair, what in PAIRS.items() if action in pair)
        poses = self._poses(thing, what, rng)
        return poses[1 if what in ("tile", "glyph") else int(rng.random() < 0.5)], label

    def _poses(self, thing: str, what: str, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws the two poses between which a clip changes."""
        colour = list(COLOURS.values())[int(rng.random() * len(COLOURS))]
        empty = background(self.size, rng)
        corner = [self.size // 4 * int(3 * rng.random()) for _ in range(2)]  # as in data/world.py
        return [self._pose(thing, what, step, corner, colour, empty) for step in (0, 1)]

    def _pose(self, thing: str, what: str, step: int, corner, colour, empty) -> np.ndarray:
        """Draws one of the two poses: what changes is less of itself in pose 0."""
        image, less = empty.copy(), what if not step else ""
        if what == "second":
            corner = [0 if at < self.size // 4 else self.size // 2 for at in corner]
            if not less:
                self._draw(image, thing, [self.size // 2 - at for at in corner], colour, _GLYPH)
        if less != "tile":
            extent = {"glyph": 0.0, "size": _SMALL}.get(less, _GLYPH)
            self._draw(image, thing, corner, colour, extent)
        return image

    def _draw(self, image, thing: str, corner, colour, extent: float) -> None:
        """Draws a tile, and a glyph of that extent in its middle."""
        tile = round(_TILE * self.size)
        top, left = corner
        image[top : top + tile, left : left + tile] = colour
        if not extent:
            return
        times, keep = sprite(thing, round(extent * self.size))
        height, width = keep.shape[:2]
        y, x = top + (tile - height) // 2, left + (tile - width) // 2
        under = image[y : y + height, x : x + width]
        under[:] = (under * keep + times + 127) // 255


@passed_on_to(Moving)
def load(root: str = "", **options) -> Moving:
    """See Moving; root is not used."""
    return Moving(**options)
