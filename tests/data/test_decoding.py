"""Decoding ahead of the device: in order, and never more than so many images at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data.decoding import Decoder, decoded_in_order


@pytest.mark.parametrize("ahead", [1, 4])
def test_no_more_images_are_held_than_asked_for(ahead):
    begun = []

    def items():
        for i in range(50):
            begun.append(i)
            yield i

    with ThreadPoolExecutor(8) as pool:
        for taken, value in enumerate(decoded_in_order(pool, lambda i: i * i, items(), ahead)):
            assert value == taken**2
            assert len(begun) <= taken + 1 + ahead
    assert taken == 49


def test_a_decoder_holds_two_batches(monkeypatch):
    read = []

    def load(item):
        read.append(item)
        return np.zeros((4, 4, 3), np.uint8)

    keys = [str(i) for i in range(100)]
    batches = Decoder(load).batches(range(100), keys, 5)
    for number, batch in enumerate(batches, start=1):
        assert batch.shape == (5, 4, 4, 3)
        assert len(read) <= 5 * number + 2 * 5 + 1
    assert number == 20
