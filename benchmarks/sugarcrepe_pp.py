"""SugarCrepe++: are two ways to say the same nearer to the image, and to each other, than a foil?

Dumpala et al. 2024, arXiv 2406.11171. Five files of 4,757 items over COCO val2017.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import two_positives
from data.rows import rows
from intervals import Mean

SUBSETS = ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
AGGREGATES = {metric: Mean(f"{s}_{metric}" for s in SUBSETS) for metric in ("itt", "tot")}


@benchmark(two_positives, aggregates=AGGREGATES, texts=3)
def run(root: str, images: str) -> Iterator[Item]:
    """Image-to-text (itt) and text-only (tot) accuracy per subset and over the five.

    Args:
      root: folder of the five annotation files, replace_obj.json and so on.
      images: folder of COCO val2017.
    """
    for subset in SUBSETS:
        for row in rows(f"{root}/{subset}.json"):
            shown = [row.image("filename", images)]
            yield Item.of(row, subset, shown, ("caption", "caption2", "negative_caption"))
