"""WiSE-FT and position embeddings; the latter against torch where it is installed."""

import jax
import numpy as np
import pytest

from pretrained.positions import resize_positions
from pretrained.wise_ft import wise_ft

TREE = {"a": np.float32([0.1, -0.7]), "b": {"c": np.float32(3)}}
OTHER = {"a": np.float32([0.3, 0.7]), "b": {"c": np.float32(-1)}}


def test_wise_ft_ends_are_bit_identical():
    for alpha, tree in ((0, TREE), (1.0, OTHER)):
        jax.tree.map(np.testing.assert_array_equal, wise_ft(TREE, OTHER, alpha), tree)


def test_wise_ft_is_linear():
    mixed = wise_ft(TREE, OTHER, 0.25)
    np.testing.assert_allclose(mixed["a"], [0.15, -0.35], rtol=1e-6)
    np.testing.assert_allclose(mixed["b"]["c"], 2.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_wise_ft_wants_a_share(alpha):
    with pytest.raises(ValueError, match="from 0 to 1"):
        wise_ft(TREE, OTHER, alpha)


def test_wise_ft_wants_one_shape():
    for wrong in ({"a": TREE["a"]}, {**TREE, "a": np.zeros(3, np.float32)}):
        with pytest.raises(ValueError, match="not of one shape"):
            wise_ft(TREE, wrong, 0.5)


def positions(count, width=5):
    return np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("extra", [0, 1])
def test_same_grid_stays_and_the_class_token_is_not_touched(extra):
    table = positions(49 + extra)
    np.testing.assert_allclose(resize_positions(table, 49 + extra), table, atol=1e-6)
    larger = resize_positions(table, 144 + extra)
    assert larger.shape == (144 + extra, 5) and larger.dtype == np.float32
    np.testing.assert_array_equal(larger[:extra], table[:extra])


def test_a_constant_stays_constant_and_a_ramp_a_ramp():
    grid = np.stack(np.broadcast_arrays(np.ones((6, 6)), np.arange(6.0)[:, None]), -1)
    larger = resize_positions(grid.reshape(36, 2).astype(np.float32), 144).reshape(12, 12, 2)
    np.testing.assert_allclose(larger[..., 0], 1, rtol=1e-6)
    # Half-pixel centres: row i of twelve lies at (i + 0.5) / 2 - 0.5 of six.
    np.testing.assert_allclose(larger[4:8, 3, 1], [1.75, 2.25, 2.75, 3.25], atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("old, new", [(7, 12), (7, 16), (16, 7), (14, 24), (24, 14)])
@pytest.mark.parametrize("extra", [0, 1])
def test_equals_torch_as_open_clip_calls_it(old, new, extra):
    torch = pytest.importorskip("torch")
    table = positions(old * old + extra)
    grid = torch.tensor(table[extra:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False
    )
    expected = grid.permute(0, 2, 3, 1).reshape(new * new, -1).numpy()
    actual = resize_positions(table, new * new + extra)
    np.testing.assert_allclose(actual[extra:], expected, atol=2e-6)
