"""SugarCrepe: does the model prefer a caption to its minimally altered twin?

Hsieh et al., "SugarCrepe: Fixing Hackable Benchmarks for Vision-Language Compositionality", 2023.
Seven annotation files of 7,511 pairs over photographs of COCO val2017.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.base import Scores, decided, macro, micro, read_json, summarise
from errors import MissingFileError, UserError

CATEGORIES = {
    "replace": ("replace_obj", "replace_att", "replace_rel"),
    "swap": ("swap_obj", "swap_att"),
    "add": ("add_obj", "add_att"),
}
SUBSETS = tuple(subset for subsets in CATEGORIES.values() for subset in subsets)
KEYS = ("filename", "caption", "negative_caption")


def run(encoder, root: str, images: str, partial_images: bool = False) -> Scores:
    """Accuracy per subset, and under every aggregate in use (see aggregates()).

    A pair is right where s(image, caption) > s(image, negative_caption); a tie is wrong.

    Args:
      root: folder of the seven annotation files, add_att.json and so on.
      images: folder of COCO val2017.
      partial_images: score the pairs whose image is there and count the others as left out.

    Raises:
      UserError: an annotation file or, unless partial_images, an image that
        is missing; a row without the right keys.
    """
    pairs = {subset: read_pairs(Path(root) / f"{subset}.json") for subset in SUBSETS}
    folder = Path(images)
    names = {row["filename"] for rows in pairs.values() for row in rows}
    there = {name for name in names if (folder / name).is_file()}
    kept = {
        subset: [row for row in rows if row["filename"] in there] for subset, rows in pairs.items()
    }
    left_out = {subset: len(pairs[subset]) - len(kept[subset]) for subset in SUBSETS}
    if not there or (len(there) < len(names) and not partial_images):
        hint = "; to score the rest pass partial_images (--eval.sugarcrepe.partial_images)"
        raise MissingFileError(
            f"SugarCrepe: {len(names) - len(there)} of {len(names)} images are missing from "
            f"{folder} ({sum(left_out.values())} of {sum(map(len, pairs.values()))} pairs); "
            f"it should be the folder of COCO val2017{hint if there else ''}"
        )

    outcomes, ties = {}, {}
    for subset, rows in kept.items():
        if rows:
            margin = margins(encoder, folder, rows)
            outcomes[subset] = decided(margin > 0, margin)
            ties[subset] = int((margin == 0).sum())
    counts = {subset: len(right) for subset, right in outcomes.items()}
    return Scores(summarise(outcomes, ties, aggregates(counts)), left_out)


def margins(encoder, folder: Path, rows: list[dict]) -> np.ndarray:
    """s(image, caption) - s(image, negative caption), float32 [n]; 0 exactly where they tie."""
    image = encoder.images([folder / row["filename"] for row in rows])
    caption, negative = (encoder.texts([row[key] for row in rows]) for key in KEYS[1:])
    # Each score on its own: the difference of the texts would hide ties in rounding.
    return np.sum(image * caption, axis=1) - np.sum(image * negative, axis=1)


def aggregates(counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Weights over the subsets, for every way of summing SugarCrepe up that papers use.

    replace_macro, swap_macro, add_macro: unweighted within a category (DeGLA's table).
    category_mean: mean of the three categories, micro averages inside them (vl_compo).
    macro: unweighted over the seven subsets. micro: over all pairs.

    Args:
      counts: subset -> pairs scored. An aggregate that needs a subset that is not there is
        not returned.
    """
    complete = {
        name: subsets for name, subsets in CATEGORIES.items() if set(subsets) <= set(counts)
    }
    result = {f"{name}_macro": macro(subsets) for name, subsets in complete.items()}
    if len(complete) == len(CATEGORIES):
        result["category_mean"] = {
            subset: weight / len(CATEGORIES)
            for subsets in CATEGORIES.values()
            for subset, weight in micro(counts, subsets).items()
        }
        result["macro"] = macro(SUBSETS)
        result["micro"] = micro(counts, SUBSETS)
    return result


def read_pairs(path: Path) -> list[dict]:
    """Rows of one annotation file, {id: {filename, caption, negative_caption}}.

    Raises:
      UserError: no such file, not json, or a row without those keys.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected {{id: {{{', '.join(KEYS)}}}}}, found a {type(content).__name__}"
        )
    for key, row in content.items():
        texts = [row.get(k) for k in KEYS] if isinstance(row, dict) else [None]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{path}: row {key!r} needs the texts {', '.join(KEYS)}")
    return list(content.values())
