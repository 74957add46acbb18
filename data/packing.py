"""Several short texts in one row of the text tower, which then computes no padding
(Krell et al. 2021, arXiv 2107.02027)."""

import math
from collections.abc import Callable, Iterable

import numpy as np

Shapes = dict[str, tuple[tuple[int, ...], type]]  # of a batch: (shape, dtype) by field


def lengths(texts: np.ndarray) -> np.ndarray:
    """Tokens of each text without the padding of 0 behind it: ids [..., L] -> int [...].

    Where it ends for the model is the model's own rule (models/towers.py): the first end token,
    which is never beyond this.
    """
    # Id 0 is a token, too: only what follows the last other one is padding.
    return texts.shape[-1] - np.argmax(texts[..., ::-1] != 0, axis=-1)


def row_choices(shares: Iterable[float], texts: int) -> dict[float, int]:
    """Rows that so many texts may be packed into, by share of the texts; 1.0 holds any texts."""
    return {share: math.ceil(share * texts) for share in sorted({*shares, 1.0})}


def pack(
    texts: np.ndarray,
    row_length: int,
    choose_rows: Callable[[int], int],
    sizes: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Places texts into rows, shard by shard: no row holds texts of two shards.

    Args:
      texts: int32 [S, n, L], token ids of the n texts of each shard, padded with 0.
      row_length: P, at least as long as the longest text.
      choose_rows: rows that the fullest shard needs -> R, rows to make.
      sizes: int [S, n], tokens of each text; None: see lengths().

    Returns:
      slots int32 [S, R, P], the token in each place as an index into the shard's n * L tokens,
      n * L where there is none; starts int32 [S, n], the place of each text's first token as an
      index into the shard's R * P places.
    """
    shards, n, length = texts.shape
    sizes = lengths(texts) if sizes is None else sizes
    placed = [_best_fit_decreasing(of_shard, row_length) for of_shard in sizes]
    rows = choose_rows(max(count for _, count in placed))
    slots = np.full((shards, rows * row_length), n * length, np.int32)
    starts = np.stack([start for start, _ in placed])
    for shard, text, offset in np.argwhere(np.arange(length) < sizes[..., None]):
        slots[shard, starts[shard, text] + offset] = text * length + offset
    return slots.reshape(shards, rows, row_length), starts.astype(np.int32)


def with_rows(slots: np.ndarray, starts: np.ndarray, rows: int) -> np.ndarray:
    """The slots that pack() made with starts, of rows as long as texts, with empty rows added."""
    empty = starts.shape[1] * slots.shape[2]
    return np.pad(slots, [(0, 0), (0, rows - slots.shape[1]), (0, 0)], constant_values=empty)


def _best_fit_decreasing(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """First place of each item when rows are laid end to end, and the number of rows."""
    starts = np.empty(len(sizes), np.int64)
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    count = 0
    for item in np.argsort(-sizes, kind="stable"):
        size = sizes[item]
        room = next((r for r in range(size, capacity + 1) if rows_with_room[r]), None)
        if room is None:
            row, room, count = count, capacity, count + 1
        else:
            row = rows_with_room[room].pop()
        starts[item] = row * capacity + capacity - room
        rows_with_room[room - size].append(row)
    return starts, count
