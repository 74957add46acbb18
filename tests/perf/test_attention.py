"""perf/attention.py: without attention all but its products is left; what our kernel saves."""

import dataclasses

import jax
import pytest

from models import zoo
from perf import attention
from planning import plan


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


@pytest.mark.tpu
@pytest.mark.slow
def test_our_kernel_moves_less_than_half_of_what_xlas_attention_does():
    """Packed texts of B/32, by the TPU's compiler: with the blocks' products, and their weights."""
    pytest.importorskip("libtpu")
    device = plan.open_target("v5e:2x4").devices[0]
    shape = dataclasses.replace(zoo.shape("ViT-B-32").text, layers=2)
    xla, ours = (attention.cost_of(shape, kind, "full", 64, device) for kind in ("xla", "pallas"))
    assert 2 * ours.traffic < xla.traffic
