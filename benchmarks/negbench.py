"""NegBench: does a model understand "no" and "without"? Alhamoud et al. 2025, arXiv 2501.09425."""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice, retrieval
from data.rows import Row, rows
from errors import UserError
from intervals import Pooled

CAPTIONS = tuple(f"caption_{i}" for i in range(4))
AGGREGATES = {"total": Pooled(["positive", "negative", "hybrid"])}


@benchmark(choice, ties="argmax", aggregates=AGGREGATES)
def run(
    images: str, mcq: str = "", negated: str = "", cut: str = "data/coco/images/val2017"
) -> Iterator[Item]:
    """Four captions of which one is right, by its template, and retrieval with negated captions.

    In the released COCO file the right one is always the first, and a tie's first is chosen: a
    model that tells nothing apart gets 100 % where a tie is right. The strict reading is beside it.

    Args:
      images: folder that the paths in the files start from, without `cut`.
      mcq: csv of image_path, correct_answer, caption_0 to 3, correct_answer_template.
      negated: csv of filepath and captions, scored by recall.
      cut: beginning of the paths that is not below `images`.
    """
    if not (mcq or negated):
        raise UserError("benchmark negbench has no file: pass --eval.negbench.mcq or .negated")

    def image(row: Row, name: str) -> str:
        row[name] = row.text(name).removeprefix(cut).lstrip("/")
        return row.image(name, images)

    for row in rows(mcq) if mcq else ():
        kind, right = row.text("correct_answer_template"), row.number("correct_answer")
        yield Item.of(row, kind, [image(row, "image_path")], CAPTIONS, right=right)
    for row in rows(negated) if negated else ():
        # The released file has captions of no words, which count as they do there.
        texts, path = tuple(row.texts("captions", empty=True)), image(row, "filepath")
        yield Item("negated", row.key, [path], texts, where=row.where, scorer=retrieval)
