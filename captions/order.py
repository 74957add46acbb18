"""ARO's word-order perturbations of captions, made once by a seeded tagger and kept with a hash.

    python -m captions.order coco_karpathy_test.json --out=coco_order.json

Of a caption: nouns and adjectives shuffled, all but these shuffled, words shuffled within trigrams,
trigrams shuffled. Each text is then lower-cased, stripped of punctuation and cut to 30 words, as in
ARO's code (arXiv 2210.01936).
"""

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import files
from captions.rules import ADJECTIVES, NOUNS, parse
from data import frozen
from errors import UserError, one_line_errors
from paths import as_path

MOST_WORDS = 30


def perturbations(caption: str, rng: np.random.Generator) -> list[str]:
    """The caption and its four perturbations, all of the same clean words."""
    # Cleaned before it is shuffled: a "man 's" among the texts would give the false ones away.
    sentence = parse(clean(caption))
    words = list(sentence.words)
    named = [i for i, tag in enumerate(sentence.tags) if tag in NOUNS | ADJECTIVES]
    others = sorted(set(range(len(words))).difference(named))
    trigrams = [words[i : i + 3] for i in range(0, len(words), 3)]
    within = [[trigram[i] for i in rng.permutation(len(trigram))] for trigram in trigrams]
    texts = [
        words,
        _permuted(words, named, rng),
        _permuted(words, others, rng),
        itertools.chain(*within),
        itertools.chain(*(trigrams[i] for i in rng.permutation(len(trigrams)))),
    ]
    return [" ".join(itertools.islice(text, MOST_WORDS)) for text in texts]


def clean(caption: str) -> str:
    """Lower case, and words alone."""
    return " ".join(re.findall(r"\w+", caption.lower().replace("'", "")))


def write(annotations: Path, file: Path, seed: int = 0) -> str:
    """Writes a row {image, texts} for each caption, with a hash, which it returns.

    Args:
      annotations: Karpathy's [{image, caption: [..]}] or [{image_name, captions: [..]}].
      seed: another seed is another benchmark: figures of two are not comparable.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i, row in enumerate(tqdm(files.read_json(annotations), unit="image", disable=None)):
        try:
            image = row.get("image") or row["image_name"]
            texts = row.get("caption") or row["captions"]
        except (AttributeError, KeyError):
            raise UserError(f"{annotations}[{i}]: expected {{image, caption: [..]}}") from None
        rows += [{"image": image, "texts": perturbations(text, rng)} for text in texts]
    made = {"by": "captions/order.py", "tagger": "HanTa, English", "seed": seed}
    return frozen.write(file, rows, made)


def _permuted(words: Sequence[str], at: Sequence[int], rng: np.random.Generator) -> list[str]:
    result = list(words)
    for i, j in zip(at, rng.permutation(len(at)), strict=True):
        result[i] = words[at[j]]
    return result


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m captions.order", description=__doc__)
    parser.add_argument("annotations", help="Karpathy's COCO or Flickr30k test file")
    parser.add_argument("--out", required=True, help="json to write, for benchmarks/aro.py")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write(as_path(options.annotations), as_path(options.out), options.seed))


if __name__ == "__main__":
    main()
