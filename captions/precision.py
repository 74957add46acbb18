"""How well the checks tell good drafts from bad: on labelled pairs, and on SugarCrepe's.

python -m captions.precision tests/golden/caption_pairs.tsv --sugarcrepe=DIR
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import files
from captions import types
from captions.checks import Pair, rejection
from errors import UserError, one_line_errors
from intervals import wilson
from paths import disk_argument

# SugarCrepe's files, by the type that each is an example of.
SUGARCREPE = {
    "swap_obj": "swap_nouns",
    "swap_att": "swap_adjectives",
    "replace_obj": "replace_noun",
    "replace_att": "replace_adjective",
}


def read_pairs(path: Path) -> list[dict[str, str]]:
    """Rows with the columns type, label (good or bad), caption and draft, tab-separated.

    Raises:
      UserError: it is no such table; names the row.
    """
    rows = files.read_table(path, ("type", "label", "caption", "draft"), "\t")
    for where, row in rows:
        if row["label"] not in ("good", "bad"):
            raise UserError(f"{where}: label {row['label']!r} is not good or bad")
    return [row for _, row in rows]


def confusion(rows: Iterable[dict[str, str]]) -> dict[str, Counter]:
    """For each type, and for 'all', how many pairs of (label, whether the checks let it pass)."""
    counts = {}
    for row in rows:
        pair = Pair(row["caption"], row["draft"])
        passes = rejection(pair, types.load(row["type"]).checks) is None
        for name in (row["type"], "all"):
            counts.setdefault(name, Counter())[row["label"], passes] += 1
    return counts


def precision_and_recall(counts: Counter) -> tuple[tuple[int, int], tuple[int, int]]:
    """(hits, of how many): of drafts that pass those that are good, and of good ones that pass."""
    hits, good = counts["good", True], counts["good", True] + counts["good", False]
    return (hits, hits + counts["bad", True]), (hits, good)


def rejections(pairs: Sequence[tuple[str, str]], name: str) -> Counter:
    """How often which reason, or None, comes out for pairs of caption and negative."""
    checks = types.load(name).checks
    return Counter(rejection(Pair(*pair), checks) for pair in pairs)


def read_sugarcrepe(path: Path) -> list[tuple[str, str]]:
    """Pairs of caption and negative of one of SugarCrepe's files."""
    rows = files.read_object(path).values()
    return [(row["caption"], row["negative_caption"]) for row in rows]


def _share(hits: int, total: int) -> str:
    if not total:
        return "none"
    low, high = wilson(hits / total, total)
    return f"{hits / total:.1%} ({low:.1%} to {high:.1%}, {hits} of {total})"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captions.precision",
        description="Precision and recall of the checks on labelled pairs, with 95 % intervals.",
    )
    parser.add_argument(
        "pairs", type=disk_argument, help="tsv with columns type, label, caption, draft"
    )
    parser.add_argument("--sugarcrepe", type=disk_argument, help="folder of SugarCrepe's files")
    options = parser.parse_args()
    with one_line_errors():
        rows = read_pairs(options.pairs)
        folder = options.sugarcrepe
        theirs = {f: read_sugarcrepe(folder / f"{f}.json") for f in SUGARCREPE} if folder else {}
    for name, counts in confusion(rows).items():
        precision, recall = precision_and_recall(counts)
        print(f"{name:<18} precision {_share(*precision)}, recall {_share(*recall)}")
    for file, pairs in theirs.items():
        for name in ("reshuffle", *SUGARCREPE.values()):
            counts = rejections(pairs, name)
            reasons = ", ".join(f"{reason} {n}" for reason, n in counts.most_common() if reason)
            print(f"{file:<12} as {name:<18} {_share(counts[None], len(pairs))}: {reasons}")


if __name__ == "__main__":
    main()
