"""Hard positives: is a caption that is still true preferred too? Kamath et al. 2024.

arXiv 2409.17958. `brittleness`: right on the first caption and wrong on the one that says the same.
"""

from collections.abc import Iterator, Sequence

from benchmarks.aro import BOX
from benchmarks.base import Item, benchmark, grouped
from benchmarks.scorers import choice
from data.rows import rows
from errors import UserError

NAMES = ("vl_checklist_attributes", "vl_checklist_relations")


def aggregates(counts) -> dict:
    """For each file: right on the first, less right on both."""
    made = {}
    for name, _ in grouped(counts, lambda figure: figure.rpartition("_")[0]):
        made[f"{name}_brittleness"] = {f"{name}_original": 1.0, f"{name}_both": -1.0}
    return made


@benchmark(choice, aggregates=aggregates, texts=2)
def run(root: str, images: str, names: Sequence[str] = NAMES) -> Iterator[Item]:
    """Accuracy on the first captions, on the swapped or replaced ones, and on both; a tie is wrong.

    Args:
      root: folder of data and swapped_data, whose files have the same rows.
      images: folder that the images' paths start from.
      names: of files in both, without .json.
    """
    for name in names:
        firsts, seconds = (rows(f"{root}/{d}/{name}.json") for d in ("data", "swapped_data"))
        if len(firsts) != len(seconds):
            counts = f"{len(firsts)} rows and {len(seconds)} swapped"
            raise UserError(f"{root}: {name}.json has {counts}")
        for i, pair in enumerate(zip(firsts, seconds, strict=True)):
            if pair[0].text("image_path") != pair[1].text("image_path"):
                raise UserError(f"{pair[1].where}: its image is not that of {pair[0].where}")
            for kind, row in zip(("original", "hard"), pair, strict=True):
                image = row.image("image_path", images)
                if "bbox_x" in row:
                    image = row.crop(image, BOX)
                texts, parts = ("true_caption", "false_caption"), {f"{name}_both": str(i)}
                yield Item.of(row, f"{name}_{kind}", [image], texts, parts=parts)
