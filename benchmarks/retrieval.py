"""Retrieval of captions from images and of images from captions.

Any captions.json, `[{image, captions: [..]}]`: COCO's Karpathy 5k, Flickr30k's 1k, or a held-out
split of one's own photographs. Chance is k / keys for a query with one right key.
"""

import numpy as np

from benchmarks.base import Scores, decided, summarise
from data import sources

RECALL_AT = (1, 5, 10)
_CHUNK = 256  # queries at a time: 256 x 25,010 captions are 26 MB of scores


def run(
    encoder,
    root: str,
    annotations: str = "captions.json",
    images: str = "images",
    split: str = "all",
    test_size: int = 0,
) -> Scores:
    """Recall@1, 5 and 10 both ways: the share of queries with a right key among the top k.

    A caption is right for its image, an image for each of its captions. A tie of a right with a
    wrong key counts as wrong. Intervals resample images, together with their captions.

    Args:
      root, annotations, images: see data.sources.captions.
      split, test_size: train, test or all, see data.sources.load; with a run's own values of
        config.data these are the images that the run was, or was not, trained on.

    Raises:
      UserError: what data.sources raises.
    """
    source = sources.load(
        "captions", root, split=split, test_size=test_size, annotations=annotations, images=images
    )
    records = [source[i] for i in range(len(source))]
    # Rows may share an image: their captions are all right for it.
    numbers = {path: i for i, path in enumerate(dict.fromkeys(r["image"] for r in records))}
    texts = [caption for record in records for caption in record["captions"]]
    owners = np.array([numbers[record["image"]] for record in records for _ in record["captions"]])

    image, text = encoder.images(list(numbers)), encoder.texts(texts)
    ids = np.arange(len(image))
    directions = {
        "image_to_text": (ids, *ranks(image, text, ids, owners)),
        "text_to_image": (owners, *ranks(text, image, owners, ids)),
    }
    outcomes, ties, groups = {}, {}, {}
    for direction, (images_of_queries, rank, tied) in directions.items():
        for k in RECALL_AT:
            name = f"{direction}_recall@{k}"
            outcomes[name], ties[name] = decided(rank < k, rank), int(tied.sum())
            groups[name] = images_of_queries
    return Scores(summarise(outcomes, ties, {}, groups))


def ranks(
    queries: np.ndarray, keys: np.ndarray, query_ids: np.ndarray, key_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many wrong keys are at least as near to each query as its nearest right one.

    Args:
      queries, keys: float32 [Q, D], [K, D], unit norm.
      query_ids, key_ids: int [Q], [K]; a key is right for a query where the two are equal.

    Returns:
      float64 [Q], 0 where a right key comes first, NaN where a score of the query is NaN; a tie
      counts as wrong.
      bool [Q], where a wrong key ties with the nearest right one.
    """
    # A matrix product may round equal columns differently; equal keys must tie exactly.
    distinct, columns = np.unique(keys, axis=0, return_inverse=True)
    rank, tied = [], []
    for start in range(0, len(queries), _CHUNK):
        scores = (queries[start : start + _CHUNK] @ distinct.T)[:, columns]
        right = query_ids[start : start + _CHUNK, None] == key_ids[None, :]
        best = np.max(scores, axis=1, where=right, initial=-np.inf)[:, None]
        wrong = np.sum((scores >= best) & ~right, axis=1)
        rank.append(np.where(np.isnan(scores).any(axis=1), np.nan, wrong))
        tied.append(np.any((scores == best) & ~right, axis=1))
    return np.concatenate(rank), np.concatenate(tied)
