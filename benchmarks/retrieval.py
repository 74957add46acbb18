"""Retrieval of captions from images and of images from captions.

Any captions.json, `[{image, captions: [..]}]`: COCO's Karpathy 5k, Flickr30k's 1k, or a held-out
split of one's own photographs.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark, grouped
from benchmarks.scorers import retrieval
from data import sources


@benchmark(retrieval)
def run(
    root: str,
    annotations: str = "captions.json",
    images: str = "images",
    split: str = "all",
    test_size: int = 0,
) -> Iterator[Item]:
    """Recall@1, 5 and 10 both ways: the share of queries with a right key among the top k.

    A caption is right for its image, an image for each of its captions. A tie of a right with a
    wrong key counts as wrong. Intervals resample images, together with their captions.

    Args:
      root, annotations, images: see data.sources.captions.
      split, test_size: train, test or all, see data.sources.load; with a run's own values of
        config.data these are the images that the run was, or was not, trained on.
    """
    source = sources.load(
        "captions", root, split=split, test_size=test_size, annotations=annotations, images=images
    )
    records = [source[i] for i in range(len(source))]
    # Rows may share an image: their captions are all right for it.
    for image, of_image in grouped(records, lambda record: record["image"]):
        captions = tuple(caption for record in of_image for caption in record["captions"])
        yield Item("", image, [image], captions, where=of_image[0]["key"])
