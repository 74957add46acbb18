"""The models that read a batch: what each of them is shown, and its texts packed or cut."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from data import packing, roles

CONTEXT_LENGTH = 77
SLOTS, STARTS = "text_slots", "text_starts"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A model that reads the batch.

    Attributes:
      tokenizer: None for one that reads the student's texts.
      context_length, causal: see data/pipeline.py.
      image_size: pixels; None for one that sees the student's images.
    """

    tokenizer: object = None
    context_length: int = CONTEXT_LENGTH
    causal: bool = True
    image_size: int | None = None

    def lengths(self, shorter: Sequence[int]) -> list[int]:
        """What its texts may be cut to where they are not packed."""
        longest = self.context_length
        shorter = shorter if self.causal else ()
        return sorted({*(min(length, longest) for length in shorter), longest})

    def shapes(
        self, n: int, fields: Mapping[str, tuple], text_lengths, text_rows, shards: int
    ) -> dict[str, packing.Shapes]:
        """Its part of the batches of n samples, by what tells them apart, small to large.

        Args:
          fields: of texts: (texts of a sample, their shape but for the length).
          text_lengths, text_rows, shards: see data/pipeline.py.
        """
        image = {}
        if self.image_size is not None:
            image["image"] = ((n, self.image_size, self.image_size, 3), np.uint8)
        if self.tokenizer is None:
            return {"": image}

        def cut(length):
            texts = {name: ((n, *shape, length), np.int32) for name, shape in fields.items()}
            return image | texts

        if not (self.causal and text_rows):
            return {f"{length} tokens": cut(length) for length in self.lengths(text_lengths)}
        texts = n // shards * sum(math.prod(shape) for shape in fields.values())
        whole = cut(self.context_length) | {"text_starts": ((shards, texts), np.int32)}
        return {
            f"text_rows {share:g}": whole
            | {"text_slots": ((shards, rows, self.context_length), np.int32)}
            for share, rows in packing.row_choices(text_rows, texts).items()
        }


def everyone(student: Reader, others: Mapping[str, Mapping]) -> dict[str, Reader]:
    """All that read a batch, by what stands in front of the names of their fields.

    Args:
      others: the arguments of Reader, by name, of models beside the student.
    """
    return {"": student} | {f"{name}/": Reader(**options) for name, options in others.items()}


@dataclasses.dataclass(frozen=True)
class Pack:
    """Packs the texts of a piece of a batch, of one shard, into as few rows as hold them.

    Attributes:
      prefixes: of the texts' names.
    """

    prefixes: Sequence[str]

    def __call__(self, piece):
        for prefix in self.prefixes:
            own = {name[len(prefix) :]: x for name, x in piece.items() if name.startswith(prefix)}
            piece = piece | {prefix + name: x for name, x in packed(own).items()}
        return piece


def packed(batch, shards: int = 1) -> dict[str, np.ndarray]:
    """text_slots and text_starts of a batch, of as few rows as hold its texts."""
    n, length = batch["text"].shape
    of_batch = [ids.reshape(n, -1, length) for ids in _texts(batch).values()]
    texts = np.concatenate(of_batch, axis=1).reshape(shards, -1, length)  # sample by sample
    slots, starts = packing.pack(texts, length, lambda rows: rows)
    return {SLOTS: slots, STARTS: starts}


def with_common_rows(batch, text_rows, agree):
    """A batch whose packed texts have as many rows as those of all processes."""
    slots, starts = batch[SLOTS], batch[STARTS]
    choices = packing.row_choices(text_rows, starts.shape[1]).values()
    rows = agree(next(rows for rows in choices if rows >= slots.shape[1]))
    return batch | {SLOTS: packing.with_rows(slots, starts, rows)}


def cut(batch, lengths, agree):
    """Cuts the padding that all texts of a batch share, to one of `lengths`."""
    texts = _texts(batch)
    longest = max(packing.lengths(tokens).max() for tokens in texts.values())
    length = agree(next(length for length in lengths if length >= longest))
    return batch | {name: tokens[..., :length] for name, tokens in texts.items()}


def _texts(batch):
    """Ids by field, in the order in which a sample's texts are packed (models/clip.py)."""
    further = sorted(name for name in batch if name.startswith(roles.TEXTS))
    return {name: batch[name] for name in ("text", "negatives", *further) if name in batch}
