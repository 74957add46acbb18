"""Encoders that check a benchmark, not a model: an oracle, chance, a constant, a blind one.

Each stands where an Encoder does and learns the questions first. An oracle must be right on all of
them; random vectors must be near chance; a constant must tie everywhere; and what an n-gram model
of the texts gets without looking at an image is what the benchmark gives away.
"""

import dataclasses
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from data.images import image_key

DIM = 512
FOLDS = 5
_SHARED = 4  # a text of more images than these stands for them, such as the name of a class


class Random:
    """Unit vectors that depend on nothing but a seed and the name of what they stand for."""

    truncated = 0

    def __init__(self, seed: int | str = 0):
        self._seed = seed

    def learn(self, items: Sequence, pairs: Callable) -> None:
        """Nothing is learnt.

        Args:
          items: the questions of a benchmark; pairs: (image, text) of one that belong together.
        """

    def images(self, items: Sequence) -> np.ndarray:
        """Float32 [n, DIM], unit norm."""
        return self._stack("image", [image_key(item) for item in items])

    def texts(self, texts: Sequence) -> np.ndarray:
        """Float32 [n, DIM], unit norm."""
        return self._stack("text", texts)

    def videos(self, items: Sequence, views: int, **sampling) -> np.ndarray:
        """Float32 [n, 1, 1, DIM], unit norm: as if one frame of one clip said all."""
        return self.images(items)[:, None, None]

    def _stack(self, kind: str, keys: Sequence) -> np.ndarray:
        rows = {key: self._vector(kind, key) for key in dict.fromkeys(keys)}
        return np.stack([rows[key] for key in keys]).astype(np.float32)

    def _vector(self, kind: str, key) -> np.ndarray:
        return _own(f"{self._seed} {kind}", key)


class Constant(Random):
    """One vector for everything."""

    def _vector(self, kind, key):
        return np.full(DIM, DIM**-0.5)


class Oracle(Random):
    """Near where image and text belong together, far where not."""

    def __init__(self):
        super().__init__()
        self._texts_of: dict[str, set] = defaultdict(set)
        self._images_of: dict[object, set] = defaultdict(set)

    def learn(self, items, pairs):
        """Remembers the pairs of an image and a text that belong together."""
        for image, text in (pair for item in items for pair in pairs(item)):
            self._texts_of[image_key(image)].add(text)
            self._images_of[text].add(image_key(image))

    def _vector(self, kind, key):
        # A caption is what its images are; an image of a class is what the class's names are.
        if kind == "image":
            shared = [t for t in self._texts_of[key] if len(self._images_of[t]) > _SHARED]
            return _unit(_own("image", key) + sum(_own("text", text) for text in shared))
        images = self._images_of.get(key, ())
        if 0 < len(images) <= _SHARED:
            return _unit(sum(_own("image", image) for image in images))
        return _own("text", key)


class Blind(Random):
    """Sees texts alone: how likely a trigram model of other groups' right texts finds them."""

    def __init__(self):
        super().__init__()
        self._likelihood: dict = {}

    def learn(self, items, pairs):
        """Fits a model without each fold of the images, which judges the texts of that fold."""
        fold_of: dict = {}
        for item in {id(item.texts): item for item in items}.values():
            for text in item.texts:
                fold_of.setdefault(text, _hash(item.cluster) % FOLDS)
        right = {text for item in items for _, text in pairs(item)}
        for fold in range(FOLDS):
            model = Trigrams(text for text in right if fold_of[text] != fold)
            for text in (text for text, own in fold_of.items() if own == fold):
                self._likelihood[text] = model.mean_log_probability(text)

    def _vector(self, kind, key):
        if kind == "image":
            return np.array([1.0, 0.0])
        cosine = max(-1.0, 1 + self._likelihood[key] / 30)  # nats a word
        return np.array([cosine, math.sqrt(1 - cosine**2)])


class Trigrams:
    """A word trigram model, smoothed after Witten and Bell (1991)."""

    def __init__(self, texts: Iterable):
        self._after: dict[tuple, Counter] = defaultdict(Counter)
        for text in texts:
            for context, word in _contexts(text):
                for start in range(3):
                    self._after[context[start:]][word] += 1
        self._total = {context: words.total() for context, words in self._after.items()}

    def mean_log_probability(self, text) -> float:
        """Nats a word, the end counted as one."""
        return float(np.mean([math.log(self._probability(c, w)) for c, w in _contexts(text)]))

    def _probability(self, context: tuple, word: str) -> float:
        shorter = 1 / (1 + len(self._after.get((), ())))
        for start in (2, 1, 0):
            words = self._after.get(context[start:])
            if words:
                kinds = len(words)
                total = self._total[context[start:]]
                shorter = (words.get(word, 0) + kinds * shorter) / (total + kinds)
        return shorter


ENCODERS = {"oracle": Oracle, "random": Random, "constant": Constant, "blind": Blind}


def _contexts(text) -> Iterable[tuple[tuple[str, str], str]]:
    said = " ".join(text) if isinstance(text, tuple) else text
    words = re.findall(r"\w+|[^\w\s]", said.lower())
    padded = ["<", "<", *words, ">"]
    return (((a, b), c) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False))


def _own(kind: str, key) -> np.ndarray:
    return _unit(np.random.default_rng(_hash(f"{kind} {key}")).normal(size=DIM))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def beside_blind(scores):
    """Scores with the ceiling of a model of the texts alone beside them, where it can decide."""
    if scores.again is None:
        return scores
    ceiling = {s.name: s.value for s in scores.again(Blind()).scores if s.warning is None}
    beside = (dataclasses.replace(s, blind=ceiling.get(s.name)) for s in scores.scores)
    return dataclasses.replace(scores, scores=tuple(beside))
