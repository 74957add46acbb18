"""CREPE, productivity: a caption among its hard negatives, by how long it is. Ma et al. 2023."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import rows
from errors import MissingFileError
from intervals import Mean
from paths import as_path, glob

KINDS = ("atom", "swap", "negate")
AGGREGATES = {"average": Mean(KINDS)}
BOX = ("x", "y", "width", "height")


@benchmark(choice, aggregates=AGGREGATES)
def run(root: str, images: str) -> Iterator[Item]:
    """Recall@1 of the caption for each kind of negative (arXiv 2212.07796); a tie is wrong.

    Args:
      root: folder of atom, swap and negate, each with its csv files of image_id, caption, hard_negs
        and, where the image is cropped, x, y, width, height.
      images: folder of Visual Genome's images, both parts in one.
    """
    for kind in KINDS:
        files = glob(as_path(root, kind), "*.csv")
        if not files:
            raise MissingFileError(f"{root}/{kind}: no csv file of CREPE there")
        for file in files:
            for row in rows(file):
                image = row.image("image_id", images, ".jpg")
                if row.get("x"):
                    image = row.crop(image, BOX)
                texts = row.text("caption"), *row.texts("hard_negs")
                yield Item(kind, f"{file.stem} {row.key}", [image], texts, where=row.where)
