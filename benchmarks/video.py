"""Open-vocabulary action recognition, as FROSTER scores it (arXiv 2402.03241, section 4).

Base to novel: classes that training showed, classes that it did not, and the harmonic mean of the
two. Cross-dataset: the splits of other data sets, and for each their mean and standard deviation.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from benchmarks.base import Item, Outcomes, Scores, lessons, summarise
from benchmarks.scorers import choice
from data import sources
from data.video import class_texts
from errors import UserError
from intervals import Mean

TOP = (1, 5)


def run(
    encoder,
    sets: Mapping[str, Mapping],
    source: str = "video",
    root: str = "",
    num_frames: int = 8,
    frame_stride: int = 16,
    views: int = 3,
) -> Scores:
    """Top-1 and top-5 of each set of videos among the set's own classes.

    The similarities of a video's frames to a class are averaged over the frames of a clip and
    summed over its clips. A class is the mean of its texts by each template with its description,
    and of the description alone. A tie counts as wrong.

    <set>_top1, <set>_top5; of sets called base and novel, harmonic_mean of their top-1; of sets
    called <name>/<split>, <name>_mean and <name>_std of their top-1 over the splits (of the
    sample, n - 1). Where a source tells which two classes no frame tells apart, <set>_pairs: the
    share of videos nearer to their own of the two, and <set>_things: of those nearest to either.

    Args:
      sets: name -> options of the source, such as annotations and classes of data.video.load.
      source, root: see data.sources.load.
      num_frames, frame_stride, views: see data.video.test_clips.

    Raises:
      ValueError, FileNotFoundError: what the source or decoding raises; no sets.
    """
    if not sets:
        raise UserError("benchmark video has no sets of videos: give config.eval.video.sets some")
    outcomes, pairs = {}, {}
    for name, options in sets.items():
        videos = sources.load(source, root, **options)
        records = [videos[i] for i in range(len(videos))]
        texts = class_ensembles(videos)
        items = [Item(name, r["key"], [r["video"]], texts, r["label"]) for r in records]
        if hasattr(encoder, "learn"):
            encoder.learn(*lessons(items, choice.pairs))
        sampling = dict(num_frames=num_frames, frame_stride=frame_stride, views=views)
        scores, labels = similarities(encoder, items, sampling)
        right = np.take_along_axis(scores, labels[:, None], axis=1)
        tied = np.sum(scores == right, axis=1) > 1
        for k in TOP:
            outcomes[f"{name}_top{k}"] = Outcomes(
                items,
                np.sum(scores >= right, axis=1) <= k,
                tied,
                *strongest(scores, labels, videos.classes),
                min(1.0, k / len(videos.classes)),
            )
        if hasattr(videos, "twins"):
            for kind, margin in twin_margins(scores, labels, videos.twins).items():
                shown = outcomes[f"{name}_top1"]
                chance = 1 / 2 if kind == "pairs" else 2 / len(videos.classes)
                pairs[f"{name}_{kind}"] = dataclasses.replace(
                    shown, right=margin > 0, tied=margin == 0, chance=chance
                )
    return summarise(outcomes | pairs, aggregates(sets))


def strongest(scores, labels, classes) -> tuple[list, list]:
    """The similarity of the right class and of the best wrong one, and both their names."""
    wrong = scores.copy()
    np.put_along_axis(wrong, labels[:, None], -np.inf, axis=1)
    both = np.stack([labels, wrong.argmax(axis=1)], axis=1)
    names = [tuple(classes[i] for i in pair) for pair in both]
    return list(np.take_along_axis(scores, both, axis=1)), names


def similarities(encoder, items, sampling: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Of n videos to the C classes, [n, C], summed over views; and the labels, int [n]."""
    frames = encoder.videos([item.images[0] for item in items], **sampling)
    scores = frames.mean(axis=2).sum(axis=1) @ encoder.texts(items[0].texts).T
    return scores, np.array([item.right for item in items])


def twin_margins(scores, labels, twins) -> dict[str, np.ndarray]:
    """By how much own scores lead, [n]: before the twin's, and the better of the two before all."""
    both = np.stack([labels, np.array(twins)[labels]], axis=1)
    own, twin = np.take_along_axis(scores, both, axis=1).T
    others = scores.copy()
    np.put_along_axis(others, both, -np.inf, axis=1)
    return {"pairs": own - twin, "things": np.maximum(own, twin) - others.max(axis=1)}


def class_ensembles(videos) -> tuple[tuple[str, ...], ...]:
    """For each class its texts by every template, and the description alone, which counts once."""
    by_template = [class_texts(videos, template) for template in videos.templates]
    return tuple(zip(*(texts[::2] for texts in by_template), by_template[0][1::2], strict=True))


def aggregates(sets) -> dict:
    """What is made of the sets' top-1, for summarise()."""
    made = {}
    if {"base", "novel"} <= set(sets):
        names = ("base_top1", "novel_top1")
        # The harmonic mean; 0 where one of the two is.
        made["harmonic_mean"] = names, lambda b, n: 2 * b * n / np.maximum(b + n, 1e-9)
    for group in dict.fromkeys(name.partition("/")[0] for name in sets if "/" in name):
        names = [f"{name}_top1" for name in sets if name.startswith(f"{group}/")]
        made[f"{group}_mean"] = Mean(names)
        if len(names) > 1:
            made[f"{group}_std"] = names, lambda *splits: np.std(splits, axis=0, ddof=1)
    return made
