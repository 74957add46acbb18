"""The four scorers that carry every benchmark: questions and an encoder -> outcomes by figure.

Similarities are cosines in float32. Equal texts and equal images tie exactly.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.items import Item, Outcomes, grouped

FIRST = {"": 1}
RECALL_AT = (1, 5, 10)
_CHUNK = 256  # queries at a time: 256 x 25,010 captions are 26 MB of scores
_PAIRS = 4096  # up to so many, similarities are summed pair by pair
_SHOWN = 11  # similarities that an outcome keeps: the right one and the strongest wrong ones


def choice(encoder, items: Sequence[Item], among: Mapping[str, int] = FIRST) -> dict[str, Outcomes]:
    """One image among k texts, or one text among k images; one is right, or any of several.

    <subset>_<metric>: a right one is among the first n, below _SHOWN, for n by metric.
    <part>, where items have parts: all of the items that share the part's id are right.
    """
    scores: list = [None] * len(items)
    shown, firsts = list(scores), np.zeros(len(items))
    for i, row in _choices(encoder, items):
        # A score that is no number comes first, so that it is seen.
        order = np.argsort(-np.where(np.isnan(row), np.inf, row), kind="stable")
        right = np.isin(order, items[i].right)
        kept = [order[right][0], *order[~right][: _SHOWN - 1]]
        scores[i], firsts[i] = row[kept], right.argmax()
        texts = items[i].texts
        shown[i] = texts if len(items[i].images) > 1 else [texts[k] for k in kept]
    ways = np.array([max(len(item.texts), len(item.images)) for item in items])
    rights = np.array([np.size(item.right) for item in items])

    def leads(n: int) -> np.ndarray:
        """Of the right one before the n-th strongest wrong one."""
        return np.array([row[0] - row[n] if len(row) > n else np.inf for row in scores])

    def hits(n: int) -> Outcomes:
        chance = _hit_chance(ways, rights, n)
        return _outcomes(items, leads(n), scores, shown, chance, firsts < n)

    outcomes = _by_subset({metric: hits(n) for metric, n in among.items()})
    first, lead = hits(1), np.where(np.isnan(leads(1)), -np.inf, leads(1))
    for part in dict.fromkeys(part for item in items for part in item.parts):
        ids = [item.parts.get(part) for item in items]
        units = grouped((i for i, name in enumerate(ids) if name is not None), ids.__getitem__)
        units = [np.array(unit) for _, unit in units]
        outcomes[part] = dataclasses.replace(
            first.at([unit[lead[unit].argmin()] for unit in units]),  # the weakest for its unit
            argmax=np.array([first.argmax[unit].all() for unit in units]),
            chance=np.array([first.chance[unit].prod() for unit in units]),
        )
    return outcomes


def two_positives(encoder, items: Sequence[Item]) -> dict[str, Outcomes]:
    """Two captions p, q that are right and one n that is not, by the image and by the texts alone.

    <subset>_itt: s(i, p) > s(i, n) and s(i, q) > s(i, n).
    <subset>_tot: s(p, q) > s(p, n) and s(p, q) > s(q, n).
    """
    images, texts = _embeddings(encoder, items)
    image = np.stack([images(item)[0] for item in items])
    p, q, n = np.stack([texts(item) for item in items], axis=1)
    itt = np.stack([_dot(image, t) for t in (p, q, n)], axis=1)
    tot = np.stack([_dot(p, q), _dot(p, n), _dot(q, n)], axis=1)
    by_image, by_text = itt[:, :2].min(axis=1) - itt[:, 2], tot[:, 0] - tot[:, 1:].max(axis=1)
    said = [item.texts for item in items]
    metrics = {"itt": _outcomes(items, by_image, itt, said, 1 / 3)}
    return _by_subset(metrics | {"tot": _outcomes(items, by_text, tot, said, 1 / 3)})


def square(encoder, items: Sequence[Item]) -> dict[str, Outcomes]:
    """Two images i, j and their captions c, d (Winoground).

    <subset>_text: s(i, c) > s(i, d) and s(j, d) > s(j, c): each image chooses its text.
    <subset>_image: s(i, c) > s(j, c) and s(j, d) > s(i, d): each text chooses its image.
    <subset>_group: both.
    """
    images, texts = _embeddings(encoder, items)
    i, j = np.stack([images(item) for item in items], axis=1)
    c, d = np.stack([texts(item) for item in items], axis=1)
    scores = np.stack([_dot(i, c), _dot(i, d), _dot(j, c), _dot(j, d)], axis=1)
    ic, id_, jc, jd = scores.T
    text, image = np.minimum(ic - id_, jd - jc), np.minimum(ic - jc, jd - id_)
    # Four scores in random order: the two own ones are the largest in one of six cases.
    metrics = dict(text=(text, 1 / 4), image=(image, 1 / 4), group=(np.minimum(text, image), 1 / 6))
    said = [(*item.texts, *item.texts) for item in items]
    return _by_subset(
        {name: _outcomes(items, lead, scores, said, p) for name, (lead, p) in metrics.items()}
    )


def retrieval(encoder, items: Sequence[Item], at: Iterable[int] = RECALL_AT) -> dict[str, Outcomes]:
    """All images among all texts of a subset, and the other way: recall at 1, 5 and 10.

    An item is an image and its captions; a caption is right for its image. A hit where any right
    key is among the k nearest.
    """
    outcomes = {}
    for subset, own in grouped(items, lambda item: item.subset):
        images = [item.images[0] for item in own]
        texts = tuple(text for item in own for text in item.texts)
        owners = np.repeat(np.arange(len(own)), [len(item.texts) for item in own])
        by_image = [
            Item("", item.key, item.images, texts, np.flatnonzero(owners == i))
            for i, item in enumerate(own)
        ]
        by_text = [Item("", t, images, (t,), i) for i, t in zip(owners, texts, strict=True)]
        for way, questions, askers in (
            ("image_to_text", by_image, own),
            ("text_to_image", by_text, [own[i] for i in owners]),
        ):
            found = choice(encoder, questions, {f"{way}_recall@{k}": k for k in at})
            for name, outcome in found.items():
                outcomes[_join(subset, name)] = dataclasses.replace(outcome, items=askers)
    return outcomes


def similarities(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Cosines of unit vectors [Q, D], [K, D] -> float32 [Q, K]; equal keys get equal ones."""
    if len(queries) * len(keys) <= _PAIRS:
        return _dot(queries[:, None], keys[None])
    # A matrix product may round equal columns differently.
    distinct, columns = np.unique(keys, axis=0, return_inverse=True)
    return (queries @ distinct.T)[:, columns]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=-1, dtype=np.float32)


def _embeddings(encoder, items: Sequence[Item]) -> tuple[Callable, Callable]:
    """Functions of an item: embeddings of its images and of its texts, each encoded at once."""

    def table(encode: Callable, lists: Sequence[Sequence]) -> dict[int, np.ndarray]:
        distinct = list({id(values): values for values in lists}.values())
        rows = encode([value for values in distinct for value in values])
        ends = np.cumsum([len(values) for values in distinct])
        return dict(zip(map(id, distinct), np.split(rows, ends[:-1]), strict=True))

    images = table(encoder.images, [item.images for item in items])
    texts = table(encoder.texts, [item.texts for item in items])
    return lambda item: images[id(item.images)], lambda item: texts[id(item.texts)]


def _choices(encoder, items: Sequence[Item]) -> Iterator[tuple[int, np.ndarray]]:
    """(index of an item, similarities of what it chooses from, float32 [k]), in any order."""
    images, texts = _embeddings(encoder, items)
    of_image = [len(item.images) == 1 for item in items]
    # Items with the same texts or images to choose from are scored together.
    by_keys = grouped(
        range(len(items)), lambda i: id(items[i].texts if of_image[i] else items[i].images)
    )
    for _, at in by_keys:
        queries, keys = (images, texts) if of_image[at[0]] else (texts, images)
        for start in range(0, len(at), _CHUNK):
            some = at[start : start + _CHUNK]
            asked = np.concatenate([queries(items[i]) for i in some])
            yield from zip(some, similarities(asked, keys(items[at[0]])), strict=True)


def _outcomes(items, lead, scores, texts, chance, argmax=None) -> Outcomes:
    chance = np.broadcast_to(chance, len(items))
    return Outcomes(items, lead > 0, lead == 0, scores, texts, chance, argmax)


def _by_subset(metrics: Mapping[str, Outcomes]) -> dict[str, Outcomes]:
    """<subset>_<metric> -> its outcomes; "accuracy" where neither has a name."""
    items = next(iter(metrics.values())).items
    return {
        _join(subset, metric) or "accuracy": outcomes.at(at)
        for subset, at in grouped(range(len(items)), lambda i: items[i].subset)
        for metric, outcomes in metrics.items()
    }


def _join(*names: str) -> str:
    return "_".join(filter(None, names))


def _hit_chance(keys: np.ndarray, rights: np.ndarray, k: int) -> np.ndarray:
    """Chance that one of the right keys is among k drawn of all, each int [n] -> float64 [n]."""
    left = keys[:, None] - np.arange(k)
    missed = np.maximum(left - rights[:, None], 0) / np.maximum(left, 1)
    return 1 - missed.prod(axis=1)


def _chosen(item: Item) -> list[tuple]:
    right, by_image = np.ravel(item.right)[0], len(item.images) == 1
    return [(item.images[0 if by_image else right], item.texts[right if by_image else 0])]


# The (image, text) of an item that belong together, for encoders.honest.
choice.pairs = _chosen
square.pairs = lambda item: list(zip(item.images, item.texts, strict=True))
two_positives.pairs = lambda item: [(item.images[0], text) for text in item.texts[:2]]
retrieval.pairs = lambda item: [(item.images[0], text) for text in item.texts]
# Whether a model of the texts alone could be right.
choice.chooses_texts = two_positives.chooses_texts = True
square.chooses_texts = retrieval.chooses_texts = False
