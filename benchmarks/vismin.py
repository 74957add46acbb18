"""VisMin: minimal changes of object, attribute, count or relation. Awal et al. 2024.

arXiv 2407.16772.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark, over
from benchmarks.scorers import square
from data.rows import rows


@benchmark(square, aggregates=over("text", "image", "group"), texts=2)
def run(annotations: str, images: str = "") -> Iterator[Item]:
    """Text, image and group score by kind of change; a tie is wrong.

    Args:
      annotations: the hub's parquet file, which holds the images, or json of {image_0, text_0,
        image_1, text_1, category}.
      images: folder of images that are named.
    """
    for row in rows(annotations):
        pair = [row.image(name, images) for name in ("image_0", "image_1")]
        yield Item.of(row, row.text("category"), pair, ("text_0", "text_1"))
