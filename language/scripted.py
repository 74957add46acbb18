"""A language model that says what it was told to, for tests and planted studies."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from files import read_json
from language.base import Completion, LanguageModel, ModelError, Sampling, Score


class Scripted(LanguageModel):
    """Answers by function or table; see open().

    Attributes:
      calls: how many prompts, continuations or texts each verb was asked.
    """

    def __init__(self, answers, scores, embeddings, name):
        self.name = name
        self._answers, self._scores, self._embeddings = answers, scores, embeddings
        capabilities = {"generate": answers, "choices": scores, "score": scores}
        capabilities["embed"] = embeddings
        self.capabilities = frozenset(v for v, how in capabilities.items() if how is not None)
        self.calls = Counter()

    def _generate(self, prompts, sampling):
        self.calls["generate"] += len(prompts)
        return [[self._answer(p, i, sampling) for i in range(sampling.n)] for p in prompts]

    def _answer(self, prompt: str, index: int, sampling: Sampling) -> Completion:
        if isinstance(self._answers, Mapping):
            texts = self._look_up(self._answers, prompt)
            text = texts if isinstance(texts, str) else texts[(sampling.seed + index) % len(texts)]
        else:
            seed = (sampling.seed, index, zlib.crc32(prompt.encode()))
            text = self._answers(prompt, np.random.default_rng(seed))
        return _finish(text, sampling)

    def _choices(self, prompts, options, normalize_length):
        self.calls["choices"] += len(prompts)
        self.calls["score"] -= len(prompts) * len(options)  # which it is asked in turn
        return super()._choices(prompts, options, normalize_length)

    def _score(self, prompts, continuations):
        self.calls["score"] += len(prompts)
        return [self._score_one(*pair) for pair in zip(prompts, continuations, strict=True)]

    def _score_one(self, prompt: str, continuation: str) -> Score:
        if isinstance(self._scores, Mapping):
            value = self._look_up(self._scores, (prompt, continuation))
        else:
            value = self._scores(prompt, continuation)
        return Score(float(value), max(1, len(continuation.split())))

    def _embed(self, texts):
        self.calls["embed"] += len(texts)
        by_table = isinstance(self._embeddings, Mapping)
        of = (lambda text: self._look_up(self._embeddings, text)) if by_table else self._embeddings
        vectors = np.array([of(text) for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def _look_up(self, table: Mapping, key):
        if key not in table:
            raise ModelError(f"the scripted model {self.name} has nothing for {key!r}")
        return table[key]


def open(
    answers: Callable | Mapping | str | Path | None = None,
    scores: Callable | Mapping | None = None,
    embeddings: Callable | Mapping | None = None,
    name: str = "scripted",
) -> Scripted:
    """A model that can do what it is given the words for. A token of it is a word.

    Args:
      answers: (prompt, numpy Generator of its own for each seed and completion) -> text; or
        prompt -> text, or texts in turn; or a json file of such a table.
      scores: (prompt, continuation) -> log-probability, or a table by such pairs.
      embeddings: text -> vector, which is brought to unit length.
    """
    if isinstance(answers, str | Path):
        answers = read_json(answers)
    return Scripted(answers, scores, embeddings, name)


def _finish(text: str, sampling: Sampling) -> Completion:
    """Ends a text where a model would have."""
    ends = [text.index(stop) for stop in sampling.stop if stop in text]
    text = text[: min(ends)] if ends else text
    words = list(re.finditer(r"\S+\s*", text))
    if len(words) > sampling.max_tokens:
        text = text[: words[sampling.max_tokens - 1].end()].rstrip()
        return Completion(text, sampling.max_tokens, "length")
    return Completion(text, len(words) + 1, "stop")
