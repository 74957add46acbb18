"""Prompts with a better and a worse completion; batches as data/text.py makes them."""

from collections.abc import Sequence

from data.text import Texts, batch_shapes, train_batches
from paths import as_path

__all__ = ["batch_fields", "batch_shapes", "load", "train_batches"]


def load(root: str, file: str = "train.jsonl") -> Texts:
    """A file of {"prompt": .., "chosen": .., "rejected": ..} a line.

    Args:
      root: folder that the file's path starts from.

    Raises:
      UserError: a line that is no such record; names it.
    """
    return Texts(as_path(root, file), "preferences", ("chosen", "rejected"))


def batch_fields(num_negatives: int, texts: Sequence = ()) -> tuple[str, ...]:
    """What a batch holds for the devices."""
    del num_negatives, texts
    return ("tokens", "completion", "preferred")
