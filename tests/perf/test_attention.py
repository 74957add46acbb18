"""perf/attention.py: without attention all but its products is left."""

import dataclasses

import jax
import pytest

from models import zoo
from perf import attention


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_without_attention_its_products_are_gone(tower):
    """Each pass makes two products of L^2 d; the student's way back makes four."""
    shape = getattr(zoo.shape("tiny"), tower)
    shape = dataclasses.replace(shape, layers=2)
    rows, device = 3, jax.devices()[0]
    xla, ours, none = (
        attention.cost_of(shape, kind, "none", rows, device).flops for kind in attention.KINDS
    )
    pair = rows * shape.layers * 4 * shape.positions**2 * shape.width
    assert xla - none == (1 + 1 + 2) * pair
    assert ours - none == (1 + 1 + 2.5) * pair  # weights are made once more
