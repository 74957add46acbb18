"""The questions of benchmarks and how they came out: what readers yield and scorers return."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.images import image_key
from data.rows import Row
from errors import MissingFileError, UserError
from paths import missing_files


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One question of a benchmark.

    Attributes:
      subset: which of the benchmark's figures it counts for; "" where there is one only.
      key: its own name within the subset, as the annotation file has it.
      images: paths, encoded bytes, uint8 arrays or data.images.Crop.
      texts: captions; one that is a tuple is the mean of its phrasings.
      right: where the right one stands among those to choose from; several: where any of them does.
      group: examples that depend on each other; by default those of the same first image.
      parts: name -> id; the figure <name> is right where all items of one id are.
      where: file and row, for messages.
      scorer: where it is another than its benchmark's.
    """

    subset: str
    key: str
    images: Sequence
    texts: Sequence
    right: int | Sequence[int] = 0
    group: str | None = None
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""
    scorer: Callable | None = None

    @classmethod
    def of(cls, row: Row, subset: str, images: Sequence, texts: Sequence, **more) -> "Item":
        """The item of a row of a file; texts: the names of its fields that hold them."""
        texts = tuple(map(row.text, texts))
        return cls(subset, row.key, images, texts, where=row.where, **more)

    @functools.cached_property
    def cluster(self) -> str:
        return image_key(self.images[0]).partition("#")[0] if self.group is None else self.group


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """How the n questions of one figure came out.

    Attributes:
      items: the question of each, see Item.
      right: bool [n], strictly: a tie is wrong.
      tied: bool [n].
      scores: float32 [n, k], similarities that were compared, the right one first.
      texts: n tuples, the texts of those scores.
      chance: float [n], share of right answers by guessing.
      argmax: bool [n], or None: right where the first of the best is, in the file's order.
    """

    items: Sequence[Item]
    right: np.ndarray
    tied: np.ndarray
    scores: Sequence[np.ndarray]
    texts: Sequence[Sequence]
    chance: np.ndarray
    argmax: np.ndarray | None = None

    @functools.cached_property
    def undecided(self) -> np.ndarray:
        """bool [n], where a score is no number."""
        return np.array([bool(np.isnan(scores).any()) for scores in self.scores])

    def at(self, indices: Sequence[int]) -> "Outcomes":
        """Those of some of the questions."""

        def pick(values):
            array = isinstance(values, np.ndarray)
            return values[indices] if array else values and [values[i] for i in indices]

        return Outcomes(*(pick(getattr(self, f.name)) for f in dataclasses.fields(self)))

    def reading(self, ties: str) -> np.ndarray:
        """bool [n] under a tie rule, strict or argmax; never right where undecided."""
        right = self.right if ties == "strict" or self.argmax is None else self.argmax
        return right & ~self.undecided


def grouped(values: Iterable, key: Callable) -> list[tuple]:
    """(key, the values of that key), in order of first appearance."""
    groups: dict = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return list(groups.items())


def check_items(name: str, items: Sequence, texts: int | None) -> None:
    """Raises UserError: no items, two of one key, not so many texts, a right one that is none."""
    if not items:
        raise UserError(f"benchmark {name} has no examples")
    seen: dict[tuple[str, str], str] = {}
    for item in items:
        if texts is not None and len(item.texts) != texts:
            raise UserError(f"{item.where}: {len(item.texts)} texts where {name} has {texts}")
        ways = max(len(item.texts), len(item.images))
        if not 0 <= min(np.ravel(item.right)) <= max(np.ravel(item.right)) < ways:
            raise UserError(f"{item.where}: the right one is {item.right}, of 0 to {ways - 1}")
        if (item.subset, item.key) in seen:
            first = seen[item.subset, item.key]
            raise UserError(f"{item.where}: the id {item.key!r} is that of {first} too")
        seen[item.subset, item.key] = item.where


def with_images(name: str, items: Sequence, partial: bool) -> tuple[list, dict[str, int]]:
    """The items whose image files are there, and how many of each subset are left out.

    Raises:
      MissingFileError: all files are missing, or some, unless partial.
    """

    def paths(item):
        images = (getattr(image, "image", image) for image in item.images)
        return [str(image) for image in images if isinstance(image, str | Path)]

    wanted = {path for item in items for path in paths(item)}
    missing = missing_files(wanted)
    kept = [item for item in items if not missing.intersection(paths(item))]
    gone = Counter(item.subset for item in set(items).difference(kept))
    left_out = {item.subset: gone[item.subset] for item in items}
    if missing and not (kept and partial):
        hint = f"; to score the rest pass --eval.{name}.partial_images" if kept else ""
        raise MissingFileError(
            f"{name}: {len(missing)} of {len(wanted)} images are missing, such as {min(missing)} "
            f"({len(items) - len(kept)} of {len(items)} examples){hint}"
        )
    return kept, left_out
