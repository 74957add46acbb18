"""SugarCrepe: does the model prefer a caption to its minimally altered twin?

Hsieh et al. 2023, arXiv 2306.14610. Seven annotation files of 7,511 pairs over 1,560 photographs of
COCO val2017.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import rows
from intervals import Mean, Pooled

CATEGORIES = {
    "replace": ("replace_obj", "replace_att", "replace_rel"),
    "swap": ("swap_obj", "swap_att"),
    "add": ("add_obj", "add_att"),
}
SUBSETS = tuple(subset for subsets in CATEGORIES.values() for subset in subsets)
AGGREGATES = {
    **{f"{name}_macro": Mean(subsets) for name, subsets in CATEGORIES.items()},  # DeGLA's table
    "category_mean": Mean(map(Pooled, CATEGORIES.values())),  # vl_compo
    "macro": Mean(SUBSETS),
    "micro": Pooled(SUBSETS),
}


@benchmark(choice, aggregates=AGGREGATES, texts=2)
def run(root: str, images: str) -> Iterator[Item]:
    """Accuracy per subset and under every aggregate in use; a tie is wrong.

    Args:
      root: folder of the seven annotation files, add_att.json and so on.
      images: folder of COCO val2017.
    """
    for subset in SUBSETS:
        for row in rows(f"{root}/{subset}.json"):
            shown = [row.image("filename", images)]
            yield Item.of(row, subset, shown, ("caption", "negative_caption"))
