"""ColorSwap: two images and captions whose colours are exchanged. Burapacheep et al. 2024."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import square
from data.rows import rows


@benchmark(square, texts=2)
def run(annotations: str, images: str = "") -> Iterator[Item]:
    """Text, image and group score (arXiv 2402.04492); a tie is wrong.

    Args:
      annotations: json of {id, caption_1, caption_2, image_1, image_2}, or the hub's parquet file.
      images: folder of the images that the json names.
    """
    for row in rows(annotations):
        pair = [row.image(name, images) for name in ("image_1", "image_2")]
        yield Item.of(row, "", pair, ("caption_1", "caption_2"))
