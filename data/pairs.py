"""Two images as the halves of one, with sentences that tell of both (CLIC, NeurIPS 2025).

A source of pairs has its own batches: a batch of pairs, then one of single images with their first
sentence, and so on. A batch of singles has neither negatives nor further texts.
"""

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from data import images, pipeline, roles, sources
from errors import UserError

JOINED = "joined"  # the role of a pair's further texts
batch_fields = pipeline.batch_fields  # this pipeline has the usual ones
_TRIES = 32  # partners looked at for one of the same orientation


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Each image of a source with another of the same orientation.

    A record has as its image uint8 [side, side, 3]: portraits side by side, landscapes above each
    other, in random order, each squeezed to its half so that nothing that is told of gets lost; as
    its caption the two captions; and as texts of role joined the same the other way round, and two
    more of other sentences of both images where these have any. All of it is a pure function of
    (pair_seed, index).

    Attributes:
      singles: a source of images and captions; one with further texts of role captions is known to
        have other sentences.
      side: of the image, pixels.
    """

    singles: object
    side: int = 224
    pair_seed: int = 0

    pipeline = "pairs"

    def __post_init__(self):
        if len(self.singles) < 2:
            raise UserError("pairs need a source of two images at least")

    def __len__(self):
        return len(self.singles)

    def __getitem__(self, index):
        rng = np.random.default_rng((self.pair_seed, index))
        first = self.singles[index]
        second = self._partner(index, _is_portrait(first), rng)
        records = [first, second] if rng.random() < 0.5 else [second, first]
        chosen = [int(rng.integers(len(record["captions"]))) for record in records]
        said = [record["captions"][i] for record, i in zip(records, chosen, strict=True)]
        joined = [_join(said[::-1])]
        others = [
            roles.of_caption(record, i, "captions")
            for record, i in zip(records, chosen, strict=True)
        ]
        for _ in range(2 if all(others) else 0):
            drawn = [texts[int(rng.integers(len(texts)))] for texts in others]
            joined.append(_join(drawn if rng.random() < 0.5 else drawn[::-1]))
        return {
            "image": self._halves([record["image"] for record in records], _is_portrait(first)),
            "captions": [_join(said)],
            "texts": {JOINED: [joined]},
            "key": " and ".join(record["key"] for record in records),
        }

    def captions(self, index):
        """Of the single image: the words of the pairs are no others."""
        return sources.captions_of(self.singles, index)

    def _partner(self, index, portrait: bool, rng) -> dict:
        """Another record of that orientation; the last one tried if none turns up."""
        for _ in range(_TRIES):
            other = int(rng.integers(len(self.singles) - 1))
            record = self.singles[other + (other >= index)]
            if _is_portrait(record) == portrait:
                return record
        return record

    def _halves(self, pair, portrait: bool) -> np.ndarray:
        half = self.side // 2
        extent = (half, self.side) if portrait else (self.side, half)
        squeezed = [
            np.asarray(images.decode(image).resize(extent, Image.Resampling.BICUBIC))
            for image in pair
        ]
        return np.concatenate(squeezed, axis=1 if portrait else 0)


class First:
    """A source's records with their first caption alone."""

    def __init__(self, source):
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        record = self._source[index]
        return {name: record[name] for name in ("image", "key")} | {
            "captions": record["captions"][:1]
        }


def load(root: str, of: str = "coco", side: int = 224, pair_seed: int = 0, **options) -> Pairs:
    """Pairs of the images of another source.

    Args:
      root: of that source.
      of: its name.
      options: of it.
    """
    return Pairs(sources.load(of, root, **options), side, pair_seed)


def train_batches(
    source: Pairs,
    *,
    num_negatives: int = 0,
    make_negatives: Callable | None = None,
    texts: Sequence[tuple[str, int, int]] = (),
    start_step: int = 0,
    **options,
) -> Iterator[dict]:
    """Batches of pairs and of singles in turn; the arguments are those of data/pipeline.py."""
    of_pairs = pipeline.train_batches(
        source,
        num_negatives=num_negatives,
        make_negatives=make_negatives,
        texts=texts,
        start_step=(start_step + 1) // 2,
        **options,
    )
    of_singles = pipeline.train_batches(
        First(source.singles), start_step=start_step // 2, **options
    )
    return _in_turn(of_singles, of_pairs) if start_step % 2 else _in_turn(of_pairs, of_singles)


def batch_shapes(source, *, num_negatives: int = 0, texts=(), **options) -> dict[str, dict]:
    """The global batches that train_batches() may make, see data/pipeline.py."""
    kinds = {"singles": {}, "pairs": {"num_negatives": num_negatives, "texts": texts}}
    return {
        f"{kind}, {label}": shapes
        for kind, further in kinds.items()
        for label, shapes in pipeline.batch_shapes(source, **options, **further).items()
    }


# What they hand on they take by name.
train_batches.__signature__ = inspect.signature(pipeline.train_batches)
batch_shapes.__signature__ = inspect.signature(pipeline.batch_shapes)


def _in_turn(first: Iterator, second: Iterator) -> Iterator:
    with contextlib.closing(first), contextlib.closing(second):
        while True:
            yield next(first)
            yield next(second)


def _is_portrait(record: dict) -> bool:
    with images.open_image(record["image"]) as image:
        return image.width <= image.height


def _join(captions: Sequence[str]) -> str:
    """Captions one after the other, each with its full stop."""
    return " ".join(re.sub(r"[\s.]*$", "", text) + "." for text in captions)
