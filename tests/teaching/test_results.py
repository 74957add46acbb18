"""Means, paired differences and what is kept between runs."""

import math

import numpy as np
import pytest
from scipy import stats

from teaching import results
from teaching.results import Cells, Point


def test_intervals_are_students():
    values = [1.0, 2.0, 4.0, 5.0]
    mean, low, high = results.interval(values)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(tuple(reference))
    assert mean == 3 and results.interval([2.0]) == (2.0, -math.inf, math.inf)


def test_differences_are_paired_by_seed():
    """Seeds differ by far more than the two series do: only the pairs tell."""
    rng = np.random.default_rng(0)
    by_seed = {
        seed: [Point("base", 1, "m", 10 * seed), Point("new", 1, "m", 10 * seed + 1 + 0.01 * noise)]
        for seed, noise in enumerate(rng.normal(size=5))
    }
    base, new = results.summarise(by_seed, "base")
    assert "difference" not in base and base["seeds"] == 5
    assert new["difference_low"] > 0.9 and new["low"] < base["high"]
    by_seed[0].pop()
    _, fewer = results.summarise(by_seed, "base")
    assert fewer["seeds"] == 4 and fewer["difference"] == pytest.approx(1, abs=0.05)
    text = results.table([base, new], "base")
    assert "minus base" in text and "+1.00" in text
    assert len(results.figure([base, new], "x").axes) == 1


def test_one_seed_has_no_interval():
    (row,) = results.summarise({0: [Point("a", 1, "m", 0.5)]})
    assert row["mean"] == 0.5 and "inf" in results.table([row])
    (written,) = results.plain([row])
    assert (written["mean"], written["low"], written["high"]) == (0.5, None, None)


def test_cells_are_computed_once(tmp_path):
    told, counts = [], []
    cells = Cells(tmp_path, told.append)
    for _ in range(2):
        assert cells.once("a", lambda: counts.append(1) or {"x": [1, 2]}) == {"x": [1, 2]}
    assert told == ["a"] and counts == [1]
    # A part that fails leaves nothing behind.
    with pytest.raises(ZeroDivisionError):
        cells.once("b", lambda: 1 / 0)
    assert not (tmp_path / "b.json").exists()
