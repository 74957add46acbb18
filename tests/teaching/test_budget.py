"""Selection and allocation against brute force and closed forms."""

import itertools

import numpy as np
import pytest

from teaching.budget import BUDGETS, allocate, count, curve, select


def test_selection_is_the_best_subset():
    """Brute force over all subsets of the size that the budget allows."""
    rng = np.random.default_rng(0)
    for n in (1, 5, 10):
        utility = rng.normal(size=n)
        for budget in BUDGETS:
            k = count(budget, n)
            best = max(map(sum, itertools.combinations(utility, k)))
            chosen = select(utility, budget)
            assert len(chosen) == k and utility[chosen].sum() == pytest.approx(best)


def test_counts_are_what_the_decimals_mean():
    assert [count(b, 100) for b in (0.29, 0.57, 0.58)] == [29, 57, 58]
    assert count(0.2, 229) == 45 and count(0.999, 3) == 2
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share from 0 to 1"):
            count(wrong, 3)


def test_ties_go_to_the_earlier_item():
    assert select([1, 1, 0, 1], 0.5).tolist() == [0, 1]
    assert select([0, 1, 0, 0], 0.5, largest=False).tolist() == [0, 2]
    with pytest.raises(ValueError, match="item 1 is not a number"):
        select([0, float("nan")], 0.5)


def test_curves():
    """By the true gain: concave, its maximum inside where help can harm, the mirror when misled."""
    rng = np.random.default_rng(1)
    before, after = rng.random((2, 10))
    gain = after - before
    budgets = np.arange(11) / 10
    true = np.array(curve(gain, before, after, budgets))
    np.testing.assert_allclose(true[[0, -1]], [before.mean(), after.mean()])
    assert (np.diff(true, 2) <= 1e-12).all()
    np.testing.assert_allclose(np.diff(true), np.sort(gain)[::-1] / 10)
    assert 0 < true.argmax() < 10
    misled = np.array(curve(gain, before, after, budgets, largest=False))
    np.testing.assert_allclose(misled, true[0] + true[-1] - true[::-1])
    # The mean over random rankings is the chord.
    random = np.mean([curve(rng.random(10), before, after, budgets) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(random, np.linspace(true[0], true[-1], 11), atol=0.01)


def test_allocations_add_up():
    assert allocate({"a": 1, "b": 1, "c": 1}, 10) == {"a": 4, "b": 3, "c": 3}
    assert allocate({"a": 0.5, "b": 0.3, "c": 0.2}, 10) == {"a": 5, "b": 3, "c": 2}
    assert allocate({"a": 0, "b": 0}, 3) == {"a": 2, "b": 1}
    assert allocate({"a": 0, "b": 2}, 3) == {"a": 0, "b": 3}
    rng = np.random.default_rng(2)
    for total in range(30):
        weights = dict(enumerate(rng.random(7)))
        shares = allocate(weights, total)
        assert sum(shares.values()) == total
        exact = total * np.array(list(weights.values())) / sum(weights.values())
        assert (np.abs(np.array(list(shares.values())) - exact) < 1).all()
    for weights in ({"a": -1, "b": 2}, {"a": float("nan")}, {}):
        with pytest.raises(ValueError, match="weight of a is|cannot allocate"):
            allocate(weights, 3)
