"""BiVLC: SugarCrepe's captions with an image for the negative one too. Miranda et al. 2024."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import square
from data.rows import rows
from intervals import Pooled


def aggregates(counts) -> dict:
    """Each metric over all 2,933 items (arXiv 2406.09952)."""
    return {
        metric: Pooled(name for name in counts if name.endswith(f"_{metric}"))
        for metric in ("text", "image", "group")
    }


@benchmark(square, aggregates=aggregates, texts=2)
def run(annotations: str, images: str = "") -> Iterator[Item]:
    """Image-to-text (text), text-to-image (image) and group score by type; a tie is wrong.

    Args:
      annotations: the hub's parquet file, which holds the images, or csv or json whose columns
        image and negative_image name them.
      images: folder of those that are named.
    """
    for row in rows(annotations):
        pair = [row.image(name, images) for name in ("image", "negative_image")]
        texts = row.text("caption"), row.text("negative_caption")
        subset = f"{row.text('type')}_{row.text('subtype')}"
        yield Item(subset, row.key, pair, texts, where=row.where)
