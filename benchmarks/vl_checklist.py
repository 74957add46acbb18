"""VL-CheckList: objects, attributes and relations, one replaced. Zhao et al. 2022."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark, grouped
from benchmarks.scorers import choice
from data.rows import rows
from errors import UserError
from intervals import Mean
from paths import glob


def aggregates(counts) -> dict:
    """Over corpora, then over the kinds of each type, then over the types (arXiv 2207.00221)."""
    types = {}
    for kind, names in grouped(counts, lambda name: name.split("/")[0]):
        same = grouped(names, lambda name: name.split("/")[-1])
        types[kind] = Mean(Mean(corpora) for _, corpora in same)
    return types | {"average": Mean(types.values())}


@benchmark(choice, aggregates=aggregates, texts=2)
def run(root: str, images: str) -> Iterator[Item]:
    """Accuracy per file: the first true text of a row above its first false one; a tie is wrong.

    Args:
      root: folder of <type>/<corpus>/<kind>.json, each a list of [image, {POS: [..], NEG: [..]}].
      images: folder that the images' paths start from.
    """
    for file in glob(root, "**/*.json"):
        subset = file.relative_to(root).with_suffix("").as_posix()
        for row in rows(file, [0, 1]):
            texts = row[1]
            if not (isinstance(texts, dict) and texts.get("POS") and texts.get("NEG")):
                raise UserError(f"{row.where}: expected [image, {{POS: [..], NEG: [..]}}]")
            pair = texts["POS"][0], texts["NEG"][0]
            yield Item(subset, row.key, [row.image(0, images)], pair, where=row.where)
