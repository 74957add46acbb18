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
    "A": ("controlled_images_dataset.json", "controlled_images/{}"),
    "B": ("controlled_clevr_dataset.json", "controlled_clevr/{}"),
    "COCO_one": ("coco_qa_one_obj.json", "val2017/{:012}.jpg"),
    "COCO_two": ("coco_qa_two_obj.json", "val2017/{:012}.jpg"),
    "VG_one": ("vg_qa_one_obj.json", "vg_images/{}.jpg"),
    "VG_two": ("vg_qa_two_obj.json", "vg_images/{}.jpg"),
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
        file, path = FILES[subset]
        for row in rows(f"{root}/{file}"):
            if subset in "AB":
                yield controlled(subset, row, images)
            else:
                yield Item.of(row, subset, [f"{images}/{path.format(row.number(0))}"], (1, 2))


def controlled(subset: str, row: Row, images: str) -> Item:
    """The item of a photograph whose name says what it shows, such as mug_left_of_table.jpeg."""
    name = PurePosixPath(row.text("image_path"))
    first, place, *_, last = name.stem.split("_")
    things, axis = f"{first} {last}", "sides" if place in ("left", "right") else "others"
    shown, texts = f"{images}/{FILES[subset][1].format(name.name)}", row.texts("caption_options")
    parts = {f"{subset}_pair": f"{things} {axis}", f"{subset}_set": things}
    group = f"{subset} {things}"
    return Item(subset, row.key, [shown], tuple(texts), group=group, parts=parts, where=row.where)
