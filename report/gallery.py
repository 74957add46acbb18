"""Examples that a model gets wrong, or that two models judge differently, with their images."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.base import Scores, rule
from data.images import decode
from report.results import text_of

MOST = 240  # examples on a page
_SIDE = 112  # pixels of an image's longer side
_TEXTS = 4  # of an example


class Example(NamedTuple):
    """A row of the gallery: `verdicts` and `scores` are of each model, in their order."""

    benchmark: str
    figure: str
    key: str
    images: Sequence[str]
    texts: Sequence[tuple[str, Sequence[float]]]
    verdict: str
    margin: float


def choose(models: Mapping[str, Mapping[str, Scores]], most: int = MOST) -> tuple[list, int]:
    """The examples to be shown, and how many there are of their kind.

    Of one model those that it gets wrong, the widest off first; of several those that the first two
    judge differently, where they are furthest apart. Every figure has its share.
    """
    candidates = list(_candidates(dict(list(models.items())[:2])))
    differ = [rows for _, rows in candidates if rows]
    share = max(3, most // max(1, len(differ)))
    chosen = [row for rows in differ for row in rows[:share]][:most]
    return [_example(*row) for row in chosen], sum(map(len, differ))


def _candidates(models) -> Iterator[tuple[str, list]]:
    names = list(models)
    for benchmark, scores in models[names[0]].items():
        for figure in scores.outcomes:
            outcomes = [models[name][benchmark].outcomes[figure] for name in names]
            right = np.stack([o.reading(rule(scores.ties, figure)) for o in outcomes])
            margins = np.array([[_margin(row) for row in o.scores] for o in outcomes])
            if len(names) == 1:
                wanted, far = ~right[0], margins[0]
            else:
                wanted, far = right[0] != right[1], -np.abs(margins[0] - margins[1])
            order = sorted(np.flatnonzero(wanted), key=far.__getitem__)
            about = benchmark, figure, names, outcomes
            yield figure, [(*about, right[:, i], i, margins[0, i]) for i in order]


def _margin(scores) -> float:
    return float(scores[0] - np.max(scores[1:])) if len(scores) > 1 else 0.0


def _example(benchmark, figure, names, outcomes, right, i, margin) -> Example:
    item, texts = outcomes[0].items[i], outcomes[0].texts[i]
    said = [text_of(text) for text in texts]
    if len(item.images) == 2 and len(said) == 4:  # each image with both captions
        said = [f"image {1 + k // 2}: {text}" for k, text in enumerate(said)]
    said += [f"another image, {k}" for k in range(1, len(outcomes[0].scores[i]))]
    rows = [
        (text, [_similarity(o, i, k, texts) for o in outcomes])
        for k, text in zip(range(min(_TEXTS, len(outcomes[0].scores[i]))), said, strict=False)
    ]
    wrong = "wrong" if len(names) == 1 else f"only {names[0] if right[0] else names[1]} right"
    images = [thumbnail(image) for image in item.images[:2]]
    return Example(benchmark, figure, item.key, images, rows, wrong, margin)


def _similarity(outcomes, i: int, k: int, texts: Sequence) -> float:
    """A model's score of the k-th text of an example; NaN where it is none of those it kept.

    Each model has its own strongest wrong texts, in its own order.
    """
    own = list(outcomes.texts[i])
    if k < len(texts) and own[k : k + 1] != [texts[k]]:
        k = own.index(texts[k]) if texts[k] in own else len(own)
    return float(outcomes.scores[i][k]) if k < len(outcomes.scores[i]) else float("nan")


def thumbnail(image) -> str:
    """A small JPEG as a data address, or "" where the image is a video file or cannot be read."""
    if isinstance(image, np.ndarray) and image.ndim == 4:
        image = image[len(image) // 2]  # of a clip, its middle
    try:
        small = decode(image, _SIDE)
    except ValueError:
        return ""
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
