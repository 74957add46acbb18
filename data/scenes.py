"""What a scene of the embedded world is, and how it is drawn."""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.glyphs import sprite

COLOURS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (250, 225, 40),
    "green": (40, 160, 60),
    "blue": (40, 90, 210),
    "purple": (130, 60, 170),
    "pink": (250, 150, 200),
    "gray": (130, 130, 130),
}
SIZES = {"big": 0.44, "small": 0.30}  # longer side of a glyph over the side of the image


class Thing(NamedTuple):
    """`count` big or small glyphs of one noun on a tile of a colour.

    In a claim, colour or size is "" where nothing is said about it.
    """

    noun: str
    count: int
    colour: str
    size: str


class Claim(NamedTuple):
    """One or two things, the first `relation` ("left of", ...) the second; "": nothing said.

    A scene is described by the claim that leaves nothing out.
    """

    things: tuple[Thing, ...]
    relation: str


def pick(rng: np.random.Generator, options):
    """One of a sequence; random() alone, whose stream NumPy keeps stable."""
    return options[int(rng.random() * len(options))]


def shuffled(rng: np.random.Generator, options) -> list:
    """All of a sequence in random order."""
    return [options[i] for i in np.argsort(rng.random(len(options)), kind="stable")]


@functools.cache
def _backgrounds(size: int) -> list[np.ndarray]:
    """Plain, graded and blotched backgrounds, the same in every run."""
    rng = np.random.default_rng(0)
    made = []
    for cells in (1, 2, 3, 6) * 16:
        colours = (150 + 105 * rng.random((cells, cells, 3))).astype(np.uint8)
        image = Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)
        made.append(np.asarray(image))
    return made


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """One of few backgrounds to draw on: uint8 [size, size, 3]."""
    return pick(rng, _backgrounds(size)).copy()


def render(scene: Claim, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a scene: uint8 [size, size, 3]; rng decides on background and places.

    Tiles stand on a grid of quarters of the image, and their glyphs stray a little from the middle:
    where a thing is varies, but a small model learns what it is from few pictures.
    """
    image = background(size, rng)
    tile = round((0.92 if scene.things[0].count > 1 else 0.48) * size)
    grid = [k * size // 4 for k in range(4) if k * size // 4 <= size - tile]
    if len(scene.things) == 1:
        _draw(image, scene.things[0], tile, pick(rng, grid), pick(rng, grid), rng)
        return image
    things = scene.things if scene.relation in ("left of", "above") else scene.things[::-1]
    across = pick(rng, grid)
    for along, thing in zip((0, size // 2), things, strict=True):
        sideways = scene.relation in ("left of", "right of")
        top, left = (across, along) if sideways else (along, across)
        _draw(image, thing, tile, top, left, rng)
    return image


def _draw(image, thing: Thing, tile: int, top: int, left: int, rng: np.random.Generator) -> None:
    """Draws a tile with its glyphs, each about the middle of a cell of its own."""
    image[top : top + tile, left : left + tile] = COLOURS[thing.colour]
    cells = 1 if thing.count == 1 else 2
    cell = tile // cells
    times, keep = sprite(thing.noun, round(SIZES[thing.size] * len(image)))
    for place in shuffled(rng, range(cells * cells))[: thing.count]:
        corner = []
        for start, extent in zip(divmod(place, cells), keep.shape[:2], strict=True):
            room = cell - extent
            strays = min(room, len(image) // 16)
            corner.append(start * cell + (room - strays) // 2 + int((strays + 1) * rng.random()))
        y, x = top + corner[0], left + corner[1]
        under = image[y : y + keep.shape[0], x : x + keep.shape[1]]
        under[:] = (under * keep + times + 127) // 255
