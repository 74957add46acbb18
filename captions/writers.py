"""Who writes drafts of captions: rules, or a language model. Both are checked alike afterwards."""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from captions import types
from captions.rules import Vocabulary
from captions.sentences import parse, words_of
from language.base import LanguageModel, ModelError, require
from language.cache import cached

_FAILURES = 50  # requests in a row without an answer, after which nobody is at home


@dataclasses.dataclass(frozen=True)
class Request:
    """A draft of a type is wanted for a text; `others` are further captions of its image."""

    text: str
    others: tuple[str, ...]
    type: str


@dataclasses.dataclass(frozen=True)
class Draft:
    """A text that a writer offers.

    Attributes:
      complete: whether the writer came to an end by itself.
      tokens: that were generated for it.
    """

    text: str
    complete: bool = True
    tokens: int = 0


class Writer(Protocol):
    """Writes drafts: the same for the same request and attempt, whatever is asked beside it.

    Picklable: it is sent to the processes that write.
    """

    name: str
    model: str  # which weights write, '' for none
    seed: int
    spent: tuple[int, float]  # tokens of all prompts asked so far, and the cost of everything

    def __call__(self, requests: Sequence[Request], attempt: int) -> list[list[Draft] | None]:
        """Drafts for each request: none where it does not apply, None where nobody answered."""

    def prompt_version(self, name: str) -> str:
        """Of the prompt for a type; '' where there is none."""

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray | None:
        """Mean log-likelihood of each text's tokens in nats; None where the writer cannot tell."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Writes by the rules of the types.

    Attributes:
      drafts: at most so many for a request.
    """

    vocabulary: Vocabulary
    drafts: int = 4
    seed: int = 0
    name = "rules"
    model = ""
    spent = (0, 0.0)

    def __call__(self, requests: Sequence[Request], attempt: int) -> list[list[Draft] | None]:
        return [self._write(request, attempt) for request in requests]

    def _write(self, request: Request, attempt: int) -> list[Draft]:
        about = zlib.crc32(f"{request.type} {request.text}".encode())
        rng = np.random.default_rng((self.seed, attempt, about))
        avoided = {word for text in (request.text, *request.others) for word in words_of(text)}
        rule = types.load(request.type).rule
        candidates = rule(parse(request.text), self.vocabulary, avoided, rng)
        return [Draft(text) for text in itertools.islice(candidates, self.drafts)]

    def prompt_version(self, name: str) -> str:
        return ""

    def log_likelihoods(self, texts: Sequence[str]) -> None:
        return None


class Language:
    """Writes by the prompts of the types; opens its language model where it first writes.

    Args:
      open_model: returns a language model that can generate; where it can score, drafts are held
        to fluency.
      cache: folder that keeps the model's answers.
      drafts: completions for a request.
      temperature, top_p, max_tokens: of the completions.
      shots: examples in a prompt; None: all. A model that was taught a type needs none.

    Raises:
      UserError: when it first writes, a model that cannot generate.
    """

    name = "language"

    def __init__(
        self,
        open_model: Callable[[], LanguageModel],
        cache: Path,
        drafts: int = 4,
        seed: int = 0,
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_tokens: int = 96,
        shots: int | None = None,
    ):
        self.shots = shots
        self.seed, self._open, self._cache = seed, open_model, cache
        self._sampling = dict(
            n=drafts, temperature=temperature, top_p=top_p, max_tokens=max_tokens, stop=("\n",)
        )
        self._failures, self._last_error = 0, None
        self._answered = False

    @functools.cached_property
    def _models(self) -> tuple[LanguageModel, LanguageModel]:
        """The model itself, and what asks it nothing twice."""
        model = self._open()
        require(model, "generate")
        return model, cached(model, self._cache)

    @property
    def _model(self) -> LanguageModel:
        return self._models[1]

    @property
    def model(self) -> str:
        return self._model.name

    @property
    def spent(self) -> tuple[int, float]:
        usage = getattr(self._models[0], "usage", None)
        return (usage.prompt_tokens, usage.cost) if usage else (0, 0.0)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_models"}

    def __call__(self, requests: Sequence[Request], attempt: int) -> list[list[Draft] | None]:
        prompts = [types.load(r.type).prompt(r.text, self.shots) for r in requests]
        size = self._model.batch_size
        parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
        with ThreadPoolExecutor(self._model.concurrency) as pool:
            answers = list(pool.map(lambda part: self._generate(part, self.seed + attempt), parts))
        if self._last_error and (not self._answered or self._failures >= _FAILURES):
            raise self._gave_up()
        return list(itertools.chain.from_iterable(answers))

    def _generate(self, prompts: list[str], seed: int) -> list[list[Draft] | None]:
        if self._failures >= _FAILURES:
            raise self._gave_up()
        try:
            answers = self._model.generate(prompts, seed=seed, **self._sampling)
        except ModelError as error:
            self._failures, self._last_error = self._failures + len(prompts), error
            return [None] * len(prompts)
        self._failures, self._answered = 0, True
        return [
            [Draft(" ".join(c.text.split()), c.finish_reason == "stop", c.tokens) for c in answer]
            for answer in answers
        ]

    def _gave_up(self) -> ModelError:
        return ModelError(
            f"{self._failures} requests in a row were not answered, the last: {self._last_error}; "
            "what was written is kept: the same command goes on"
        )

    def prompt_version(self, name: str) -> str:
        return types.load(name).version(self.shots)

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray | None:
        if "score" not in self._model.capabilities:
            return None
        scores = self._model.score(["Caption:"] * len(texts), [f" {text}" for text in texts])
        return np.array([score.log_probability / max(1, score.tokens) for score in scores])
