"""EqBen: two images that differ as little as can be, of seven sources. Wang et al. 2023.

Items are as in the released private_info_global.json or the subset of a tenth; arXiv 2303.14465.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import square
from data.rows import rows
from intervals import Mean

SOURCES = ("eqbenyoucook2", "eqbengebc", "eqbenag", "eqbensd")
KUBRIC = ("eqbenkubric_loc", "eqbenkubric_cnt", "eqbenkubric_attr")
AGGREGATES = {
    metric: Mean([*(f"{s}_{metric}" for s in SOURCES), Mean(f"{s}_{metric}" for s in KUBRIC)])
    for metric in ("text", "image", "group")
}


@benchmark(square, aggregates=AGGREGATES, texts=2)
def run(annotations: str, images: str) -> Iterator[Item]:
    """Text, image and group score by source, and over sources with Kubric's three as one.

    Args:
      annotations: json of {image0, caption0, image1, caption1}.
      images: folder that their paths start from; the first folder of a path is the source.
    """
    for row in rows(annotations):
        pair = [row.image(name, images) for name in ("image0", "image1")]
        captions = (row.field(name) for name in ("caption0", "caption1"))
        texts = tuple(c[0] if isinstance(c, list) else c for c in captions)
        yield Item(row.text("image0").split("/")[0], row.key, pair, texts, where=row.where)
