"""What a language model is here: four verbs, of which each backend declares those that it has."""

import argparse
import dataclasses
import importlib
import pkgutil
from collections import Counter
from collections.abc import Sequence

import numpy as np

import language
from errors import UserError
from options import Options, check_known

VERBS = ("generate", "choices", "score", "embed")
_NOT_BACKENDS = ("base", "cache")


class ModelError(UserError, OSError):
    """A language model was asked and did not answer, for good; the message says why."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """A text that was generated after a prompt.

    Attributes:
      text: without the prompt and without the stop text.
      tokens: how many were generated, the end token too.
      finish_reason: 'stop', at the end token or a stop text; 'length', at max_tokens.
      log_probability: sum over the tokens, under the model itself (temperature 1, nothing cut);
        None where the backend does not tell.
    """

    text: str
    tokens: int
    finish_reason: str
    log_probability: float | None = None


@dataclasses.dataclass
class Usage:
    """What the requests to a model came to.

    Attributes:
      requests: that were answered in the end.
      problems: why tries failed, such as 'status 429', 'ReadTimeout' or 'unreadable answer'.
      prompt_tokens, completion_tokens: as the server, or the tokenizer here, counted them.
      cost: of these, in the currency of the prices; 0 without prices.
    """

    requests: int = 0
    problems: Counter = dataclasses.field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


@dataclasses.dataclass(frozen=True)
class Score:
    """The log-probability of a continuation after its prompt, summed over its tokens."""

    log_probability: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to generate.

    Attributes:
      n: completions for each prompt.
      temperature: 0 takes the likeliest token.
      top_k: draw among that many likeliest tokens; 0 is all.
      top_p: draw among the likeliest tokens that together have this probability.
      max_tokens: for each completion.
      stop: texts before which a completion ends.
      seed: the same model, prompt, options and seed give the same completions, whatever other
        prompts are asked beside them.

    Raises:
      UserError: a value out of its range.
    """

    n: int = 1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.stop, str):
            raise UserError(f"stop is the text {self.stop!r}; give a tuple of texts")
        object.__setattr__(self, "stop", tuple(self.stop))
        for name, fits, wanted in (
            ("n", self.n >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0, which is all"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("stop", all(self.stop), "texts of at least one letter"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not fits:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")


class LanguageModel:
    """A language model; a backend declares its capabilities and implements `_<verb>` for each.

    Attributes:
      name: says which weights answer; part of the cache's key and of what is noted with a text.
      capabilities: of VERBS; asking for another is an error before anything runs.
      batch_size: prompts that it likes to be handed at once.
      concurrency: calls that it likes to have at once, from threads.
    """

    name: str
    capabilities: frozenset[str]
    batch_size: int = 1
    concurrency: int = 1

    def generate(self, prompts: Sequence[str], **sampling) -> list[list[Completion]]:
        """n completions of each prompt; the options are the fields of Sampling."""
        require(self, "generate")
        return self._generate(_texts("prompts", prompts), Sampling(**sampling))

    def choices(
        self, prompts: Sequence[str], options: Sequence[str], *, normalize_length: bool = False
    ) -> np.ndarray:
        """Log-probabilities of each option as continuation, normalised over the options.

        Args:
          normalize_length: compare means over an option's tokens instead of sums.

        Returns:
          float64 [prompts, options]; each row's exponentials add up to 1.
        """
        require(self, "choices")
        options = _texts("options", options)
        if not options:
            raise UserError("there are no options to choose from")
        return self._choices(_texts("prompts", prompts), options, normalize_length)

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        """The log-probability of each continuation after the prompt of the same place."""
        require(self, "score")
        prompts, continuations = _texts("prompts", prompts), _texts("continuations", continuations)
        if len(prompts) != len(continuations):
            raise UserError(f"{len(prompts)} prompts, but {len(continuations)} continuations")
        return self._score(prompts, continuations)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, float32 [texts, width]."""
        require(self, "embed")
        return self._embed(_texts("texts", texts))

    def _generate(self, prompts: list[str], sampling: Sampling) -> list[list[Completion]]:
        raise NotImplementedError

    def _choices(self, prompts: list[str], options: list[str], normalize_length: bool):
        """By the scores of the options; for a backend that can score."""
        pairs = [(prompt, option) for prompt in prompts for option in options]
        scores = self._score([prompt for prompt, _ in pairs], [option for _, option in pairs])
        values = [s.log_probability / (s.tokens if normalize_length else 1) for s in scores]
        return log_softmax(np.reshape(values, (len(prompts), len(options))))

    def _score(self, prompts: list[str], continuations: list[str]) -> list[Score]:
        raise NotImplementedError

    def _embed(self, texts: list[str]) -> np.ndarray:
        raise NotImplementedError


def require(model: LanguageModel, *verbs: str) -> None:
    """Raises a UserError for a verb that the model lacks; to be called before any work."""
    if lacking := [verb for verb in verbs if verb not in model.capabilities]:
        raise UserError(
            f"the language model {model.name} cannot {' or '.join(lacking)}; "
            f"it can {', '.join(sorted(model.capabilities)) or 'nothing'}"
        )


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, float64."""
    values = np.asarray(values, np.float64)
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)


def available() -> list[str]:
    """Names of the backends: the modules beside this one."""
    names = (module.name for module in pkgutil.iter_modules(language.__path__))
    return sorted(name for name in names if name not in _NOT_BACKENDS)


def load(name: str, **options) -> LanguageModel:
    """The backend in language/<name>.py, opened with these options.

    Raises:
      UserError: no such backend or no such option; says which there are and the nearest.
    """
    check_known("language model", name, available())
    backend = importlib.import_module(f"language.{name}").open
    return backend(**Options(backend, f"language model {name}").arguments(options))


def add_arguments(parser: argparse.ArgumentParser, **model) -> None:
    """A command's --model and --option, for load(options.model, **dict(options.option)).

    Args:
      model: what add_argument takes for --model.
    """
    parser.add_argument("--model", **{"help": "a backend of language/"} | model)
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_named_value,
        help="name=value of the backend",
    )


def _named_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name, value


def _texts(what: str, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UserError(f"{what} is one text, {texts[:40]!r}; give a list of texts")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{what}[{i}] is {text!r}, no text")
    return texts
