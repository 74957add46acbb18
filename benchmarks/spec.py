"""SPEC: size, position, existence and count, by image and by text. Peng et al. 2024."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import rows
from intervals import Mean

SUBSETS = (
    *("absolute_size", "relative_size", "absolute_spatial", "relative_spatial"),
    *("existence", "count"),
)
WAYS = ("image2text", "text2image")
AGGREGATES = {way: Mean(f"{subset}_{way}" for subset in SUBSETS) for way in WAYS}
AGGREGATES["average"] = Mean(AGGREGATES.values())


@benchmark(choice, ties="argmax", aggregates=AGGREGATES)
def run(root: str) -> Iterator[Item]:
    """Accuracy both ways for each of six kinds (arXiv 2312.00081); a tie's first is chosen.

    Args:
      root: folder of absolute_size, relative_size, ..., each with its images, image2text.json and
        text2image.json.
    """
    for subset in SUBSETS:
        for way in WAYS:
            for row in rows(f"{root}/{subset}/{way}.json"):
                keys, right = tuple(row.texts("keys")), row.number("label")
                images, texts = [row.text("query")], keys
                if way == "text2image":
                    images, texts = keys, (row.text("query"),)
                paths = [f"{root}/{subset}/{image}" for image in images]
                yield Item(f"{subset}_{way}", row.key, paths, texts, right, where=row.where)
