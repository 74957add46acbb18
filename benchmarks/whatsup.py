"""What'sUp: where is one thing to another? Kamath et al. 2023, arXiv 2310.19785.

A and B show one pair of things in four places each: all of a pair of opposite places, or of a set
of four, must be right for the figures of that name.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import Row, rows
from errors import UserError
from intervals import Mean

FILES = {
    "A": ("controlled_images_dataset.json", "controlled_images"),
    "B": ("controlled_clevr_dataset.json", "controlled_clevr"),
    "COCO_one": ("coco_qa_one_obj.json", "val2017"),
    "COCO_two": ("coco_qa_two_obj.json", "val2017"),
    "VG_one": ("vg_qa_one_obj.json", "vg_images"),
    "VG_two": ("vg_qa_two_obj.json", "vg_images"),
}
AGGREGATES = {"average": Mean(FILES)}  # vl_compo


@benchmark(choice, ties="argmax", aggregates=AGGREGATES)
def run(root: str, images: str, subsets: Sequence[str] = ("A", "B")) -> Iterator[Item]:
    """Accuracy of each subset, and of A and B also over pairs and sets; a tie's first is chosen.

    Args:
      root: folder of the annotation files.
      images: folder of controlled_images, controlled_clevr, val2017 and vg_images.
      subsets: some of FILES.
    """
    for subset in subsets:
        if subset not in FILES:
            raise UserError(f"What'sUp has no subset {subset!r}; it has {', '.join(FILES)}")
        file, folder = FILES[subset]
        for row in rows(f"{root}/{file}"):
            make = _controlled if subset in "AB" else _natural
            yield make(subset, row, f"{images}/{folder}")


def _controlled(subset: str, row: Row, folder: str) -> Item:
    name = PurePosixPath(row.text("image_path")).name
    first, place, *_, last = PurePosixPath(name).stem.split("_")
    things = f"{first} {last}"
    axis = "sides" if place in ("left", "right") else "others"
    return Item(
        subset,
        row.key,
        [f"{folder}/{name}"],
        tuple(row.texts("caption_options")),
        group=f"{subset} {things}",
        parts={f"{subset}_pair": f"{things} {axis}", f"{subset}_set": things},
        where=row.where,
    )


def _natural(subset: str, row: Row, folder: str) -> Item:
    number = row.number(0)
    name = f"{number:012}" if folder.endswith("val2017") else str(number)
    texts = row.text(1), row.text(2)
    return Item(subset, row.key, [f"{folder}/{name}.jpg"], texts, where=row.where)
