"""Texts share rows: nothing lost, nothing torn, and hardly a place left empty."""

import numpy as np
import pytest

from data.packing import pack


def texts(sizes, length, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 100, (*sizes.shape, length)).astype(np.int32)
    return np.where(np.arange(length) < sizes[..., None], tokens, 0)


@pytest.mark.parametrize("shards", [1, 3])
def test_every_token_stands_once_in_order_and_in_one_row(shards):
    sizes = np.random.default_rng(1).integers(1, 13, (shards, 20))
    tokens = texts(sizes, 12)
    slots, starts = pack(tokens, 16, lambda needed: needed + 1)
    for shard in range(shards):
        flat = slots[shard].ravel()
        for i, size in enumerate(sizes[shard]):
            first = starts[shard, i]
            np.testing.assert_array_equal(flat[first : first + size], 12 * i + np.arange(size))
            assert first // 16 == (first + size - 1) // 16
        assert (flat != 12 * 20).sum() == sizes[shard].sum()


def test_all_shards_have_the_rows_that_the_fullest_needs():
    asked = []
    sizes = np.array([[8, 8, 8], [2, 2, 2]])
    slots, _ = pack(texts(sizes, 8), 8, lambda needed: asked.append(needed) or needed)
    assert asked == [3] and slots.shape == (2, 3, 8)


def test_a_zero_within_a_text_is_a_token():
    slots, starts = pack(np.array([[[5, 0, 7, 0]]], np.int32), 4, lambda needed: needed)
    assert slots.tolist() == [[[0, 1, 2, 4]]] and starts.tolist() == [[0]]


def test_captions_leave_few_places_empty():
    sizes = np.random.default_rng(2).normal(14, 3.5, (1, 500)).round().clip(4, 30).astype(int)
    slots, _ = pack(texts(sizes, 77), 77, lambda needed: needed)
    assert sizes.sum() / slots.size > 0.97
