"""VALSE: is a caption preferred to its foil, for seven linguistic phenomena in eleven files?

Parcalabescu et al. 2022, arXiv 2112.07566. Of an example, two of three annotators must have agreed
that the caption is right and the foil is not.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import rows
from errors import UserError
from intervals import Mean

CATEGORIES = {
    "existence": ("existence",),
    "plurality": ("plurals",),
    "counting": ("counting-hard", "counting-small-quant", "counting-adversarial"),
    "spatial_relations": ("relations",),
    "actions": ("action-replacement", "actant-swap"),
    "coreference": ("coreference-standard", "coreference-hard"),
    "nouns": ("foil-it",),
}
SUBSETS = tuple(subset for subsets in CATEGORIES.values() for subset in subsets)
AGGREGATES = {
    **{name: Mean(subsets) for name, subsets in CATEGORIES.items() if len(subsets) > 1},
    "average": Mean(SUBSETS),  # over the eleven files: DeGLA's table
    "category_mean": Mean(map(Mean, CATEGORIES.values())),  # over the seven phenomena: vl_compo
}
_AGREED = 2  # annotators, of three


@benchmark(choice, aggregates=AGGREGATES, texts=2)
def run(
    root: str,
    visual7w: str = "",
    swig: str = "",
    visdial: str = "",
    coco2014: str = "",
    coco2017: str = "",
) -> Iterator[Item]:
    """Accuracy per file, per phenomenon and over both; a tie is wrong.

    Args:
      root: folder of the eleven annotation files, existence.json and so on.
      visual7w, swig, visdial, coco2014, coco2017: folders of the images of each data set.
    """
    folders = {"visual7w": visual7w, "SWiG": swig, "VisDial_v1.0": visdial}
    folders |= {"FOIL dataset": coco2014, "coco2017": coco2017, "coco_2017": coco2017}
    for subset in SUBSETS:
        for row in rows(f"{root}/{subset}.json", ["mturk"]):
            if row["mturk"].get("caption", 0) < _AGREED:
                continue
            if row.text("dataset") not in folders:
                raise UserError(f"{row.where}: the images of {row['dataset']!r} are not known")
            image = row.image("image_file", folders[row["dataset"]])
            yield Item.of(row, subset, [image], ("caption", "foil"))
