"""Encoders and outcomes made by hand, whose scores are known."""

import numpy as np

from benchmarks.base import Item, Outcomes
from data.images import image_key
from encoders import honest


class Table:
    """Embeddings by name: file name of an image, or a text."""

    truncated = 0

    def __init__(self, vectors):
        self._vectors = vectors

    def images(self, items):
        names = [image_key(item).rsplit("/", 1)[-1] for item in items]
        return np.array([self._vectors[name] for name in names], np.float32)

    def texts(self, texts):
        return np.array([self._vectors[text] for text in texts], np.float32)


def angle(degrees):
    """A unit vector of the plane."""
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def outcomes(right, tied=None, *, groups=None, scores=None, chance=0.5) -> Outcomes:
    """Outcomes of n questions, each of its own image unless they have groups."""
    right = np.asarray(right, bool)
    groups = np.arange(len(right)) if groups is None else groups
    items = [Item("", str(i), [f"{g}.jpg"], ("a", "b")) for i, g in enumerate(groups)]
    tied = np.zeros(len(right), bool) if tied is None else np.asarray(tied, bool)
    scores = np.zeros((len(right), 2), np.float32) if scores is None else scores
    return Outcomes(items, right, tied, scores, [("a", "b")] * len(right), chance)


def covers_chance(run, seeds: int) -> np.ndarray:
    """For each figure of a benchmark how often the interval of random vectors holds chance."""
    runs = [run(honest.Random(seed)).scores for seed in range(seeds)]
    near = 1e-9
    return np.mean([[s.low - near <= s.chance <= s.high + near for s in r] for r in runs], axis=0)
