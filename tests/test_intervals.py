"""Intervals against the normal approximation, Wilson's formula, and simulations."""

import numpy as np
import pytest
from scipy.stats import binomtest

import intervals
from intervals import Mean, Pooled, Sample


def sample(values, groups=None):
    values = np.asarray(values, float)
    return Sample(values, np.arange(len(values)) if groups is None else np.asarray(groups))


def test_interval_is_the_normal_approximation_of_a_proportion():
    found = intervals.estimates({"all": sample(np.arange(2000) < 1400)}, {})["all"]
    half_width = 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert found.value == pytest.approx(0.7) and found.method == "bootstrap"
    assert found.low == pytest.approx(0.7 - half_width, abs=0.0025)
    assert found.high == pytest.approx(0.7 + half_width, abs=0.0025)


@pytest.mark.parametrize(("right", "number"), [(2, 2), (0, 5), (7, 20), (3, 29), (500, 500)])
def test_too_few_or_all_alike_is_wilsons_interval(right, number):
    found = intervals.estimates({"all": sample(np.arange(number) < right)}, {})["all"]
    exact = binomtest(right, number).proportion_ci(method="wilson")
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-6)


def test_an_aggregate_of_few_examples_is_not_certain():
    samples = {"many": sample(np.arange(400) % 2), "two": sample([1, 1], [1000, 1001])}
    found = intervals.estimates(samples, {"macro": Mean(samples)})
    # Square-and-add by hand, from the two subsets' own intervals.
    many, two = found["many"], found["two"]
    low = 0.75 - np.hypot((many.value - many.low) / 2, (1 - two.low) / 2)
    assert found["macro"].method == "wilson" and found["macro"].low == pytest.approx(low)
    assert found["macro"].low < 0.45


def test_examples_of_a_group_are_drawn_together():
    # Five copies of each of 300 outcomes carry no more information than the 300.
    right, copies = np.arange(300) < 150, np.repeat(np.arange(300) < 150, 5)
    draws = intervals.resampled_means(
        {"grouped": sample(copies, np.repeat(np.arange(300), 5)), "single": sample(right)}
    )
    assert draws["grouped"].std() == pytest.approx(np.sqrt(0.25 / 300), rel=0.1)
    np.testing.assert_allclose(draws["grouped"], draws["single"])
    alone = intervals.resampled_means({"alone": sample(copies)})["alone"]
    assert alone.std() == pytest.approx(np.sqrt(0.25 / 1500), rel=0.1)


def test_subsets_that_share_images_are_drawn_jointly():
    # Two subsets that are one another's opposite on the same images: their mean never varies.
    right = np.arange(200) % 2
    same = intervals.resampled_means({"a": sample(right), "b": sample(1 - right)})
    np.testing.assert_allclose(same["a"] + same["b"], 1)
    found = intervals.estimates({"a": sample(right), "b": sample(right)}, {"m": Mean("ab")})
    assert (found["m"].low, found["m"].high) == (found["a"].low, found["a"].high)
    # On other images the two are independent, and their mean varies less.
    apart = {"a": sample(right), "b": sample(right, 200 + np.arange(200))}
    m = intervals.estimates(apart, {"m": Mean("ab")})["m"]
    width = found["m"].high - found["m"].low
    assert m.high - m.low == pytest.approx(width / np.sqrt(2), rel=0.15)


def test_draws_are_repeatable():
    right = {"all": sample(np.arange(100) % 3 == 0)}
    a, b = (intervals.resampled_means(right, seed=1)["all"] for _ in range(2))
    assert np.array_equal(a, b)


def planted(rng, images):
    """Each image has an accuracy of its own, and one to nine examples: the truth is 0.7."""
    number = rng.integers(1, 10, images)
    accuracy = rng.beta(1.4, 0.6, images)
    groups = np.repeat(np.arange(images), number)
    return accuracy, groups


def test_the_clustered_interval_covers_the_planted_accuracy():
    rng, hits, naive, trials = np.random.default_rng(7), 0, 0, 500
    for _ in range(trials):
        accuracy, groups = planted(rng, 150)
        right = rng.random(len(groups)) < accuracy[groups]
        found = intervals.estimates({"all": sample(right, groups)}, {})["all"]
        hits += found.low <= 0.7 <= found.high
        error = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
        naive += abs(right.mean() - 0.7) <= error
    assert 0.93 <= hits / trials <= 0.97
    assert naive / trials < 0.88  # what an interval of independent examples would claim


def test_the_interval_of_a_paired_difference_covers_the_planted_one():
    rng, hits, trials = np.random.default_rng(8), 0, 400
    for _ in range(trials):
        accuracy, groups = planted(rng, 150)
        # One model is wrong where the other is not on a tenth of the examples that it has right.
        ours = rng.random(len(groups)) < accuracy[groups]
        theirs = ours & (rng.random(len(groups)) < 0.9)
        d = intervals.differences(
            {"all": sample(ours, groups)}, {"all": sample(theirs, groups)}, {}
        )["all"]
        hits += d.low <= 0.07 <= d.high
    assert 0.93 <= hits / trials <= 0.97


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    rng, found, trials = np.random.default_rng(9), 0, 200
    first = rng.random(400) < 0.7
    swap = rng.random((trials, 400)) < 0.1  # of ten examples, one differs
    gain = 0.75  # of those that differ, the second has so many right
    sizes = []
    for row in swap:
        theirs = np.where(row, rng.random(400) < 1 - gain, first)
        ours = np.where(row, ~theirs, first)
        d = intervals.differences({"all": sample(ours)}, {"all": sample(theirs)}, {})["all"]
        sizes.append(d.detectable)
        found += d.low > 0
    true = 0.1 * (2 * gain - 1)
    # The power of a normal test for the true difference, by the size that is called detectable.
    shift = (1.96 + 0.8416) * true / np.mean(sizes) - 1.96
    from scipy.stats import norm

    assert found / trials == pytest.approx(norm.cdf(shift), abs=0.09)


def test_models_that_agree_are_not_told_apart_by_less_than_six_examples():
    values = sample(np.arange(300) % 3 == 0)
    d = intervals.differences({"all": values}, {"all": values}, {})["all"]
    assert (d.value, d.low, d.high, d.discordant) == (0, 0, 0, 0)
    assert d.detectable == pytest.approx(6 / 300)
    few = sample([1, 0, 1])
    d = intervals.differences({"all": few}, {"all": few}, {})["all"]
    assert d.low < 0 < d.high


def test_means_by_hand():
    counts = {"a": 4, "b": 1, "c": 5}
    assert Mean("ab").weights(counts) == {"a": 0.5, "b": 0.5}
    assert Pooled("ab").weights(counts) == {"a": 0.8, "b": 0.2}
    nested = Mean([Pooled("ab"), "c", Mean("a")]).weights(counts)
    assert nested == pytest.approx({"a": (0.8 + 1) / 3, "b": 0.2 / 3, "c": 1 / 3})
    with pytest.raises(KeyError):
        Mean(["a", Mean(["gone"])]).weights(counts)
