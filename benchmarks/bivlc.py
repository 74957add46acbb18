"""BiVLC: SugarCrepe's captions with an image for the negative one too. Miranda et al. 2024.

arXiv 2406.09952. 2,933 items, over all of which the three metrics are taken.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark, over
from benchmarks.scorers import square
from data.rows import rows
from intervals import Pooled


@benchmark(square, aggregates=over("text", "image", "group", mean=Pooled), texts=2)
def run(annotations: str, images: str = "") -> Iterator[Item]:
    """Image-to-text (text), text-to-image (image) and group score by type; a tie is wrong.

    Args:
      annotations: the hub's parquet file, which holds the images, or csv or json whose columns
        image and negative_image name them.
      images: folder of those that are named.
    """
    for row in rows(annotations):
        pair = [row.image(name, images) for name in ("image", "negative_image")]
        subset = f"{row.text('type')}_{row.text('subtype')}"
        yield Item.of(row, subset, pair, ("caption", "negative_caption"))
