"""A fork: how often a scene is nearer to its caption than to a negative, by a margin."""

import numpy as np

from benchmarks.base import Score, Scores
from data.world import World


def run(encoder, scenes: int = 16, margin: float = 0.0, kinds: tuple[str, ...] = ()) -> Scores:
    """Share of the scenes of the embedded world.

    Args:
      scenes: how many.
      margin: in cosine.
      kinds: types of negatives; none: all.
    """
    examples = [World(part="test", size=64).example(i) for i in range(scenes)]
    images = encoder.images([example.image for example in examples])
    captions = encoder.texts([example.caption for example in examples])
    scores = []
    for kind in kinds or sorted({kind for example in examples for kind in example.negatives}):
        at = [i for i, example in enumerate(examples) if kind in example.negatives]
        negatives = encoder.texts([examples[i].negatives[kind] for i in at])
        gap = np.sum(images[at] * (captions[at] - negatives), axis=1)
        value, error = 100 * np.mean(gap > margin), 98 / len(at) ** 0.5
        low, high = np.clip([value - error, value + error], 0, 100)
        scores.append(Score(kind, float(value), len(at), 0, float(low), float(high)))
    return Scores(tuple(scores))
