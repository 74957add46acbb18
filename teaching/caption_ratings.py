"""Forgetting measured on human judgement: does CLIPScore still agree with ratings of captions?

`python -m teaching.caption_ratings RUN --reference=WEIGHTS --ratings=ExpertAnnotations.txt
--captions=Flickr8k.token.txt --images=DIR` compares a fine-tuned model with the one it came from,
on Flickr8k-Expert's files, in CLIPScore's protocol (arXiv 2104.08718).
"""

import argparse
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from errors import UserError, one_line_errors
from files import lines, read_text
from paths import disk_argument
from teaching.agreement import RESAMPLES, Agreement, Estimate, Rated, agreement, difference

STATISTIC = "kendall_tau_c"  # over single ratings, as the literature reports Flickr8k-Expert
PREFIX = "A photo depicts "  # before each caption, as CLIPScore was released
WEIGHT = 2.5


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption shown with an image, and what the experts gave it, from 1 to 4."""

    image: str
    text: str
    ratings: tuple[float, ...]


def read_expert(ratings: Path, captions: Path) -> tuple[list[Caption], Counter]:
    """Flickr8k-Expert: rated pairs, and how many were left out, by reason.

    A caption that was written of the image itself is left out, as the literature does.

    Args:
      ratings: lines of image, caption's id (image#k) and three ratings, tab-separated.
      captions: lines of an id and its caption, tab-separated.

    Raises:
      UserError: a line of another layout, or a caption that is not there.
    """
    texts = {}
    for line, (name, text) in _lines(captions, 2):
        if texts.setdefault(name, text) != text:
            raise UserError(f"{captions}, line {line}: {name} has another caption before")
    of_image = defaultdict(set)
    for name, text in texts.items():
        of_image[name.partition("#")[0]].add(_plain(text))
    rated, left_out = [], Counter()
    for line, (image, name, *marks) in _lines(ratings, 5):
        if name not in texts:
            raise UserError(f"{ratings}, line {line}: {name} is not in {captions}")
        if not all(re.fullmatch(r"[1-4]", mark.strip()) for mark in marks):
            raise UserError(f"{ratings}, line {line}: ratings are {marks}, not from 1 to 4")
        if _plain(texts[name]) in of_image[image]:
            left_out["the image's own caption"] += 1
        else:
            rated.append(Caption(image, texts[name], tuple(map(float, marks))))
    return rated, left_out


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _lines(path: Path, cells: int):
    for number, line in enumerate(lines(read_text(path)), 1):
        if line.strip():
            row = line.split("\t")
            if len(row) != cells:
                raise UserError(f"{path}, line {number}: {len(row)} cells, not {cells}")
            yield number, row


def clip_scores(encoder, captions: Sequence[Caption], images: Path) -> np.ndarray:
    """CLIPScore of each caption, 2.5 max(cosine, 0), float [n]."""
    image = encoder.images([Path(images) / caption.image for caption in captions])
    text = encoder.texts([PREFIX + caption.text for caption in captions])
    return WEIGHT * np.maximum(np.sum(image * text, axis=1), 0)


def compare(
    captions: Sequence[Caption], before: np.ndarray, after: np.ndarray, resamples: int = RESAMPLES
) -> tuple[Agreement, Agreement, Estimate]:
    """Agreement before and after, and the difference of STATISTIC; intervals over images."""
    rated = [Rated(caption.ratings, caption.image) for caption in captions]
    old, new = (agreement(rated, scores, resamples=resamples) for scores in (before, after))
    return old, new, difference(STATISTIC, rated, before, after, resamples=resamples)


def open_encoder(name: str):
    """The encoder of a run or of pretrained weights."""
    from data.tokenizer import load_tokenizer
    from encoders.models import find_model, make_encoder, restore
    from training import mesh as meshes

    mesh = meshes.make_mesh()
    model, _ = find_model(name, None)
    if model.tokenizer is None:
        raise UserError(f"{name} brings no tokenizer")
    tokenizer = load_tokenizer(model.tokenizer)
    return make_encoder(*restore(model, mesh, tokenizer), mesh, tokenizer, 64)


@one_line_errors()
def main(arguments: Sequence[str] | None = None, open_encoder: Callable = open_encoder) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run directory or pretrained weights")
    parser.add_argument("--reference", required=True, help="the weights that it came from")
    for name in ("ratings", "captions", "images"):
        parser.add_argument(f"--{name}", type=disk_argument, required=True)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    options = parser.parse_args(arguments)
    captions, left_out = read_expert(options.ratings, options.captions)
    before, after = (
        clip_scores(open_encoder(name), captions, options.images)
        for name in (options.reference, options.model)
    )
    old, new, change = compare(captions, before, after, options.resamples)
    print(old.table(f"before: {options.reference}"))
    print(new.table(f"after: {options.model}"))
    low, high = (f"{end:+.3f}" if end is not None else "?" for end in change[1:])
    print(f"{STATISTIC}, after - before: {change.value:+.3f} ({low} to {high})")
    for reason, count in left_out.items():
        print(f"left out: {count} ({reason})")


if __name__ == "__main__":
    main()
