"""A language model for tests: it exchanges, replaces or copies words of the prompt's caption."""

import zlib

import numpy as np

from captions.sentences import parse

NOUNS = ("ladder", "teapot", "violin", "tractor", "pillow")


def answer(prompt: str, rng: np.random.Generator) -> str:
    """What follows the prompt: a third of the drafts is fit, by and large."""
    caption = prompt.rsplit("\n", 2)[-2].partition(": ")[2]
    sentence = parse(caption)
    nouns = [i for i, tag in enumerate(sentence.tags) if tag.startswith("NN")]
    words = list(sentence.words)
    kind = rng.integers(3)
    if not nouns or kind == 0:
        return f" {caption}\n\nCaption: and so on"
    if kind == 1:
        i, j = rng.choice(nouns), rng.choice(nouns)
        words[i], words[j] = words[j], words[i]
    else:
        words[rng.choice(nouns)] = str(rng.choice(NOUNS))
    return f" {sentence.render(words)}\n\nCaption: and so on"


def by_seed(prompt: str, seed: int) -> str:
    """The same, for a server: it ends at the line's end, as it was asked to."""
    rng = np.random.default_rng((seed, zlib.crc32(prompt.encode())))
    return answer(prompt, rng).partition("\n")[0]
