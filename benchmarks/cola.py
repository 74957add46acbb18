"""COLA, multi-object: two images, two captions of the same things with other attributes.

Ray et al. 2023, arXiv 2305.03689. 210 items; 218 images, which many items share.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from benchmarks.base import Item, benchmark
from benchmarks.scorers import square
from data.rows import rows


@benchmark(square, texts=2)
def run(annotations: str, images: str) -> Iterator[Item]:
    """Text (both images choose right: the paper's figure), image and group score; a tie is wrong.

    Args:
      annotations: the json, a list of [image 1, caption 1, image 2, caption 2].
      images: folder of the images, by the last part of their address.
    """
    for row in rows(annotations, [0, 1, 2, 3]):
        pair = [f"{images}/{PurePosixPath(row.text(i)).name}" for i in (0, 2)]
        yield Item.of(row, "", pair, (1, 3))
