"""MMVP-VLM: pairs of images that CLIP takes for one another, by nine visual patterns.

Tong et al. 2024, arXiv 2401.06209. 135 pairs. The paper's figure is image, vl_compo's is group.
"""

from collections.abc import Iterator

from benchmarks.base import Item, benchmark, over
from benchmarks.scorers import square
from data.rows import rows
from errors import UserError


@benchmark(square, aggregates=over("text", "image", "group"), texts=2)
def run(root: str, images: str, prefix: str = "a photo of ") -> Iterator[Item]:
    """Text, image and group score per pattern; a tie is wrong.

    Args:
      root: folder of Questions.csv: number, pattern and statement, two rows a pair.
      images: folder of <pattern>/<number>.jpg.
      prefix: before each statement, as in the released code.
    """
    found = rows(f"{root}/Questions.csv")
    if len(found) % 2 or any(len(row) < 3 for row in found):
        raise UserError(f"{root}/Questions.csv: expected pairs of rows of number, type, statement")
    for first, second in zip(found[::2], found[1::2], strict=True):
        number, kind, statement, *_ = first.values()
        other, _, counter, *_ = second.values()
        pair = [f"{images}/{kind}/{name.strip()}.jpg" for name in (number, other)]
        texts = prefix + statement, prefix + counter
        yield Item(kind, number, pair, texts, where=first.where)
