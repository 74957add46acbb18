"""The four scorers that carry every benchmark: questions and an encoder -> outcomes by subset.

Similarities are cosines in float32. Equal texts and equal images tie exactly.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.base import Item, Outcomes, grouped

RECALL_AT = (1, 5, 10)
_CHUNK = 256  # queries at a time: 256 x 25,010 captions are 26 MB of scores
_PAIRS = 4096  # up to so many, similarities are summed pair by pair
_SHOWN = 8  # similarities that an outcome keeps: the right one and the strongest wrong ones


def choice(encoder, items: Sequence[Item]) -> dict[str, Outcomes]:
    """One image among k texts, or one text among k images, of which one is right.

    Where items have parts, also <part>: all of the items that share the part's id.
    """
    images, texts = _embeddings(encoder, items)
    margins, scores, shown, argmax = (np.zeros(len(items)), [None] * len(items),
                                      [None] * len(items), np.zeros(len(items), bool))  # fmt: skip
    # Items with the same keys to choose from, such as classes, are scored at once.
    for _, at in grouped(range(len(items)), lambda i: (id(items[i].texts), len(items[i].images))):
        by_image = len(items[at[0]].images) == 1
        if by_image:
            table = similarities(np.stack([images(items[i])[0] for i in at]), texts(items[at[0]]))
        for n, i in enumerate(at):
            item = items[i]
            row = table[n] if by_image else similarities(texts(item), images(item))[0]
            wrong = np.delete(np.arange(len(row)), item.right)
            strongest = wrong[np.argsort(-row[wrong], kind="stable")[: _SHOWN - 1]]
            margins[i] = row[item.right] - row[wrong].max(initial=-np.inf)
            argmax[i] = not np.isnan(row).any() and np.argmax(row) == item.right
            order = [item.right, *strongest]
            scores[i] = row[order]
            shown[i] = [item.texts[k] for k in order] if by_image else item.texts

    def of(at) -> Outcomes:
        kept = [items[i] for i in at]
        ways = [max(len(item.texts), len(item.images)) for item in kept]
        return _outcomes(kept, margins[at], [scores[i] for i in at], [shown[i] for i in at],
                         float(np.mean(1 / np.array(ways))), argmax[at])  # fmt: skip

    outcomes = _metrics(items, {"": of})
    for part in dict.fromkeys(part for item in items for part in item.parts):
        ids = [item.parts.get(part) for item in items]
        units = grouped((i for i, name in enumerate(ids) if name is not None), ids.__getitem__)
        units = [unit for _, unit in units]
        # The weakest of a unit's items stands for it; a margin that is no number is the weakest.
        weakest = np.where(np.isnan(margins), -np.inf, margins)
        whole = of(np.array([unit[weakest[unit].argmin()] for unit in units]))
        chance = np.mean([np.prod([1 / len(scores[i]) for i in unit]) for unit in units])
        right = np.array([argmax[unit].all() for unit in units])
        outcomes[part] = dataclasses.replace(whole, argmax=right, chance=float(chance))
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
    margins = {
        "itt": itt[:, :2].min(axis=1) - itt[:, 2],
        "tot": tot[:, 0] - tot[:, 1:].max(axis=1),
    }

    def of(metric) -> Callable:
        scores = {"itt": itt, "tot": tot}[metric]
        return lambda at: _outcomes(
            [items[i] for i in at], margins[metric][at], scores[at],
            [items[i].texts for i in at], 1 / 3,
        )  # fmt: skip

    return _metrics(items, {metric: of(metric) for metric in margins})


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
    margins = {"text": text, "image": image, "group": np.minimum(text, image)}
    # Four scores in random order: the two own ones are the largest in one of six cases.
    chance = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}

    def of(metric) -> Callable:
        return lambda at: _outcomes(
            [items[i] for i in at], margins[metric][at], scores[at],
            [(*items[i].texts, *items[i].texts) for i in at], chance[metric],
        )  # fmt: skip

    return _metrics(items, {metric: of(metric) for metric in margins})


def retrieval(encoder, items: Sequence[Item], at: Iterable[int] = RECALL_AT) -> dict[str, Outcomes]:
    """All images among all texts of a subset, and the other way: recall at 1, 5 and 10.

    An item is an image and its captions; a caption is right for its image. A hit where any right
    key is among the k nearest; a tie of a right with a wrong key counts as wrong.
    """
    outcomes = {}
    for subset, own in grouped(items, lambda item: item.subset):
        texts = [text for item in own for text in item.texts]
        owners = np.repeat(np.arange(len(own)), [len(item.texts) for item in own])
        image, text = encoder.images([item.images[0] for item in own]), encoder.texts(texts)
        ids = np.arange(len(own))
        for way, queries, keys, query_ids, key_ids in (
            ("image_to_text", image, text, ids, owners),
            ("text_to_image", text, image, owners, ids),
        ):
            rank, tied, nearest, scores = ranks(queries, keys, query_ids, key_ids)
            askers = [own[i] for i in query_ids]
            if way == "image_to_text":
                said = [tuple(texts[key] for key in pair) for pair in nearest]
            else:
                said = [(text,) for text in texts]
            rights = np.bincount(key_ids, minlength=len(own))[query_ids]
            for k in at:
                outcomes[_join(subset, f"{way}_recall@{k}")] = Outcomes(
                    askers, rank < k, tied, scores, said, _hit_chance(len(keys), rights, k)
                )
    return outcomes


def ranks(
    queries: np.ndarray, keys: np.ndarray, query_ids: np.ndarray, key_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How many wrong keys are at least as near to each query as its nearest right one.

    Args:
      queries, keys: float32 [Q, D], [K, D], unit norm.
      query_ids, key_ids: int [Q], [K]; a key is right for a query where the two are equal.

    Returns:
      float64 [Q], 0 where a right key comes first, NaN where a score of the query is NaN; a tie
      counts as wrong.
      bool [Q], where a wrong key ties with the nearest right one.
      int [Q, 2], the nearest right key and the nearest wrong one, and float32 [Q, 2], how near.
    """
    parts = []
    for start in range(0, len(queries), _CHUNK):
        scores = similarities(queries[start : start + _CHUNK], keys)
        right = query_ids[start : start + _CHUNK, None] == key_ids[None, :]
        nearest = np.stack(
            [np.where(these, scores, -np.inf).argmax(axis=1) for these in (right, ~right)], axis=1
        )
        near = np.take_along_axis(scores, nearest, axis=1)
        best = near[:, :1]
        wrong = np.sum((scores >= best) & ~right, axis=1)
        rank = np.where(np.isnan(scores).any(axis=1), np.nan, wrong)
        parts.append((rank, np.any((scores == best) & ~right, axis=1), nearest, near))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


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
        return {
            id(values): rows[end - len(values) : end]
            for values, end in zip(distinct, ends, strict=True)
        }

    images = table(encoder.images, [item.images for item in items])
    texts = table(encoder.texts, [item.texts for item in items])
    return lambda item: images[id(item.images)], lambda item: texts[id(item.texts)]


def _outcomes(items, margins, scores, texts, chance, argmax=None) -> Outcomes:
    return Outcomes(items, margins > 0, margins == 0, scores, texts, chance, argmax)


def _metrics(items: Sequence[Item], metrics: dict[str, Callable]) -> dict[str, Outcomes]:
    """<subset>_<metric> -> its outcomes; "accuracy" where neither has a name."""
    outcomes = {}
    for subset, at in grouped(range(len(items)), lambda i: items[i].subset):
        for metric, of in metrics.items():
            outcomes[_join(subset, metric) or "accuracy"] = of(np.array(at))
    return outcomes


def _join(*names: str) -> str:
    return "_".join(filter(None, names))


def _hit_chance(keys: int, rights: np.ndarray, k: int) -> float:
    """Mean chance that one of the right keys is among k drawn of all."""
    drawn = np.arange(min(k, keys))
    left = np.maximum(keys - drawn[None] - rights[:, None], 0) / (keys - drawn[None])
    return float(np.mean(1 - np.prod(left, axis=1)))


def _chosen(item: Item) -> list[tuple]:
    if len(item.images) == 1:
        return [(item.images[0], item.texts[item.right])]
    return [(item.images[item.right], item.texts[0])]


# The (image, text) of an item that belong together, for encoders.honest.
choice.pairs = _chosen
choice.blind = two_positives.blind = True  # a model of the texts alone says what they give away
two_positives.pairs = lambda item: [(item.images[0], text) for text in item.texts[:2]]
square.pairs = lambda item: list(zip(item.images, item.texts, strict=True))
retrieval.pairs = lambda item: [(item.images[0], text) for text in item.texts]
