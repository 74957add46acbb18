"""Buying a writer's negatives: a planted gain is found by the probe; budget and gate hold."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from captions import types
from captions.checks import Pair, rejection
from data.world import INVERSE, Claim, Thing
from files import read_json
from teaching import caption_calls as module


def planted(n=400, d=6, noise=0.0):
    """Features of which a line tells the gain; the margin is one of them and says little."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)) * np.arange(1, d + 1)
    gains = features @ np.linspace(0.1, 1, d) + noise * rng.normal(size=n)
    return features, gains, np.arange(0, n, 10)


def test_a_line_is_found_by_its_probe():
    features, gains, probe = planted()
    predicted = module.fit_ridge(features[probe], gains[probe], ridge=1e-6)(features)
    assert spearmanr(predicted, gains).statistic > 0.999
    shuffled = np.random.default_rng(1).permutation(gains[probe])
    chance = module.fit_ridge(features[probe], shuffled)(features)
    assert abs(spearmanr(chance, gains).statistic) < 0.6
    flat = module.fit_ridge(np.ones((3, 2)), np.array([1.0, 2.0, 3.0]))(np.ones((2, 2)))
    np.testing.assert_allclose(flat, 2)
    with pytest.raises(ValueError, match="cannot be fitted on 1 captions"):
        module.fit_ridge(features[:1], gains[:1])


def test_utility_buys_what_gains_most():
    features, gains, probe = planted(noise=0.5)
    totals = {}
    for how in ("utility", "least margin", "random"):
        arguments = (features, features[:, 0], probe, gains[probe], 0.25)
        at = module.bought(how, *arguments, np.random.default_rng(0))
        assert len(at) == 100 == len(set(at.tolist()))
        totals[how] = gains[at].sum()
    best = np.sort(gains)[::-1][:100].sum()
    assert best > totals["utility"] > max(totals["least margin"], totals["random"])
    # The probe was paid for: it is among what was bought.
    arguments = (features, features[:, 0], probe, gains[probe])
    assert set(probe) <= set(module.bought("utility", *arguments, 0.25, None).tolist())
    everything = module.bought("utility", *arguments, 1.0, None)
    assert everything.tolist() == list(range(400))
    with pytest.raises(ValueError, match="a probe of 40 costs more than the 20"):
        module.bought("utility", *arguments, 0.05, None)
    with pytest.raises(ValueError, match="unknown way to buy 'best'"):
        module.bought("best", *arguments, 0.5, None)


def test_a_misleading_writer_is_caught():
    """It writes captions that are true, in other words: none of them passes for a negative."""
    scene = Claim((Thing("cat", 1, "red", "big"), Thing("dog", 1, "blue", "small")), "left of")
    true = [
        Claim(scene.things[::-1], INVERSE["left of"]),
        Claim(scene.things[:1], ""),
        Claim(tuple(t._replace(colour="") for t in scene.things), "left of"),
    ]
    assert module.believed(true, scene) == []
    false = Claim(scene.things[::-1], "left of")
    assert module.believed([*true, false], scene) == [false]


@pytest.mark.parametrize("kind", types.DEGLA)
def test_true_captions_of_photographs_are_caught(shared, kind):
    """A misleading writer hands in other captions of the same photograph, as people wrote them."""
    rows = read_json(shared / "data/flickr8k/captions.json")[:40]
    pairs = [
        Pair(row["captions"][i], text, tuple(c for k, c in enumerate(row["captions"]) if k != i))
        for row in rows
        for i in range(len(row["captions"]))
        for text in row["captions"]
        if text != row["captions"][i]
    ]
    passed = [rejection(pair, types.load(kind).checks) is None for pair in pairs]
    assert len(pairs) > 700 and np.mean(passed) < 0.005
