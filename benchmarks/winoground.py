"""Winoground: two images, two captions of the same words. Thrush et al. 2022, arXiv 2204.03162."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import square
from data.rows import rows


@benchmark(square, texts=2)
def run(annotations: str, images: str = "") -> Iterator[Item]:
    """Text, image and group score; a tie is wrong.

    Args:
      annotations: examples.jsonl, or the hub's parquet file, which holds the images.
      images: folder of the images that examples.jsonl names without their .png.
    """
    for row in rows(annotations):
        pair = [row.image(name, images, ".png") for name in ("image_0", "image_1")]
        yield Item.of(row, "", pair, ("caption_0", "caption_1"))
