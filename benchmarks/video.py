"""Open-vocabulary action recognition, as FROSTER scores it (arXiv 2402.03241, section 4)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.base import Scores, summarise
from benchmarks.items import Item
from benchmarks.scorers import choice
from data import sources
from data.images import image_key
from data.video import class_ensembles
from errors import UserError
from intervals import Mean

TOP = {"top1": 1, "top5": 5}


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
      UserError: what the source or decoding raises; no sets.
    """
    if not sets:
        raise UserError("benchmark video has no sets of videos: give config.eval.video.sets some")
    clips = Clips(encoder, num_frames=num_frames, frame_stride=frame_stride, views=views)
    outcomes, of_twins = {}, {}
    for name, options in sets.items():
        videos = sources.load(source, root, **options)
        records = [videos[i] for i in range(len(videos))]
        texts = class_ensembles(videos)
        items = [Item(name, r["key"], [r["video"]], texts, r["label"]) for r in records]
        if hasattr(encoder, "learn"):
            encoder.learn(items, choice.pairs)
        outcomes |= choice(clips, items, TOP)
        if hasattr(videos, "twins"):
            of_twins |= choice(clips, list(twin_items(items, videos.twins)))
    return summarise(outcomes | of_twins, aggregates(sets))


class Clips:
    """Stands where an encoder does; its images are videos: means over frames, summed over clips."""

    def __init__(self, encoder, **sampling):
        self._encoder, self._sampling, self._vectors = encoder, sampling, {}
        self.texts = encoder.texts

    def images(self, videos: Sequence) -> np.ndarray:
        """Float32 [n, D], not of unit norm; every video is encoded once."""
        keys = [image_key(video) for video in videos]
        new = {k: v for k, v in zip(keys, videos, strict=True) if k not in self._vectors}
        if new:
            frames = self._encoder.videos(list(new.values()), **self._sampling)
            self._vectors |= dict(zip(new, frames.mean(axis=2).sum(axis=1), strict=True))
        return np.stack([self._vectors[key] for key in keys])


def twin_items(items: Iterable[Item], twins: Sequence[int]) -> Iterator[Item]:
    """Each video among its class and the class's twin, and its thing, either, among all."""
    texts = {}
    for item in items:
        pair = tuple(sorted((item.right, twins[item.right])))
        of_pair = texts.setdefault(pair, tuple(item.texts[i] for i in pair))
        yield Item(f"{item.subset}_pairs", item.key, item.images, of_pair, pair.index(item.right))
        yield Item(f"{item.subset}_things", item.key, item.images, item.texts, pair)


def aggregates(sets: Iterable[str]) -> dict:
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
