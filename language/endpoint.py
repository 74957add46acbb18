"""Any OpenAI-compatible server as a language model: vLLM, llama.cpp, hosted ones.

The key comes from an environment variable and stays in memory: no log, config, cache or message
holds it.
"""

import dataclasses
import functools
import json
import math
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np

from errors import UserError
from language.base import Completion, LanguageModel, ModelError, Sampling, Usage, log_softmax

# What may pass: too early, too many, broken or overloaded.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 60.0  # seconds


@dataclasses.dataclass(eq=False)
class Endpoint(LanguageModel):
    """A server.

    Args:
      url: of the API, such as http://127.0.0.1:8000/v1.
      model: the name that the server knows it by; part of the cache's key.
      chat: each prompt is a user's message; else it is text that the model goes on with.
      embedding_model: for embed(); None is a server without embeddings.
      key_variable: name of the environment variable that holds the key, where one is needed.
      concurrency: requests at once.
      timeout: seconds until a whole answer must be there.
      retries: further tries of a request that failed for what may pass.
      first_wait: seconds before the first retry; every further wait doubles, to a minute at most.
      largest_n: completions that one request may ask for; None: as many as are wanted.
      top_n: likeliest tokens that choices() asks for; servers have limits, often 5 or 20.
      log_probabilities: ask for those of completions.
      openai_only: send only OpenAI's own fields, to a server that refuses others.
      extra: further fields of every request, such as chat_template_kwargs.
      prices: of a million tokens, of prompts and of completions.

    Attributes:
      usage: see Usage.

    Raises:
      UserError: an option out of its range, a key in the url, an empty key_variable.
    """

    url: str
    model: str
    _: dataclasses.KW_ONLY
    chat: bool = False
    embedding_model: str | None = None
    key_variable: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    largest_n: int | None = None
    top_n: int = 20
    log_probabilities: bool = True
    openai_only: bool = False
    extra: Mapping = dataclasses.field(default_factory=dict)
    prices: Sequence[float] = (0.0, 0.0)

    def __post_init__(self):
        self.url = _checked_url(self.url)
        for name, least in (("concurrency", 1), ("retries", 0), ("top_n", 1), ("first_wait", 0)):
            if (value := getattr(self, name)) < least:
                raise UserError(f"{name} is {value}; it must be at least {least}")
        if self.timeout <= 0:
            raise UserError(f"timeout is {self.timeout}; it must be above 0")
        # Whatever changes an answer is part of the name, and so of the cache's key.
        changes = {"chat": True} if self.chat else {}
        changes |= {"embedding_model": self.embedding_model} if self.embedding_model else {}
        changes |= self.extra
        self.name = self.model + (f" {json.dumps(changes, sort_keys=True)}" if changes else "")
        embed = {"embed"} if self.embedding_model else set()
        self.capabilities = frozenset({"generate", "choices"} | embed)
        self.usage = Usage()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self.concurrency)
        self._key = _read_key(self.key_variable)
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(self.timeout, connect=min(10.0, self.timeout), pool=None),
            limits=httpx2.Limits(max_connections=self.concurrency),
        )

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _generate(self, prompts, sampling):
        return self._map(lambda prompt: self._complete(prompt, sampling), prompts)

    def _complete(self, prompt: str, sampling: Sampling) -> list[Completion]:
        completions = []
        # Some servers give fewer than n; without log-probabilities tokens are told of the whole.
        while (rest := sampling.n - len(completions)) > 0:
            n = min(rest, self.largest_n or rest) if self.log_probabilities else 1
            fields = self._fields(sampling, n, sampling.seed + len(completions))
            completions += self._ask(self._path(), self._prompt(prompt) | fields, self._read)[:rest]
        return completions

    def _fields(self, sampling: Sampling, n: int, seed: int) -> dict:
        if sampling.top_k and self.openai_only:
            raise UserError("top_k is none of OpenAI's own fields; leave it out, or openai_only")
        fields = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        if n > 1:
            fields["n"] = n
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        if not self.openai_only:
            # Said also where they are nought: servers have defaults of their own.
            fields |= {"top_k": sampling.top_k, "min_p": 0.0}
        if self.log_probabilities:
            fields["logprobs"] = True if self.chat else 1
        return fields

    def _choices(self, prompts, options, normalize_length):
        del normalize_length  # each is a single token

        def choose(prompt):
            fields = {"max_tokens": 1, "temperature": 0.0, "seed": 0}
            fields |= (
                {"logprobs": True, "top_logprobs": self.top_n}
                if self.chat
                else {"logprobs": self.top_n}
            )
            top = self._ask(self._path(), self._prompt(prompt) | fields, _first_tokens)
            for option in options:
                if option not in top:
                    raise ModelError(
                        f"{self.name}: {option!r} is none of the {len(top)} likeliest tokens after "
                        f"{prompt[-40:]!r}; options must be single tokens (mind the space in front)"
                        ", and a larger top_n sees the less likely ones"
                    )
            return [top[option] for option in options]

        values = self._map(choose, prompts)
        return log_softmax(np.reshape(values, (len(prompts), len(options))))

    def _embed(self, texts):
        def read(answer):
            vectors = [row["embedding"] for row in sorted(answer["data"], key=lambda r: r["index"])]
            if len(vectors) != len(texts):
                raise ValueError(f"{len(vectors)} vectors for {len(texts)} texts")
            return np.array(vectors, np.float32)

        if not texts:
            return np.zeros((0, 0), np.float32)
        vectors = self._ask("embeddings", {"model": self.embedding_model, "input": texts}, read)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def _path(self) -> str:
        return "chat/completions" if self.chat else "completions"

    def _prompt(self, prompt: str) -> dict:
        said = {"messages": [{"role": "user", "content": prompt}]} if self.chat else {}
        return {"model": self.model, **(said or {"prompt": prompt}), **self.extra}

    def _read(self, answer: dict) -> list[Completion]:
        choices = answer["choices"]
        if not choices:
            raise ValueError("no completion in the answer")
        return [self._completion(choice, answer.get("usage") or {}) for choice in choices]

    def _completion(self, choice: dict, usage: dict) -> Completion:
        text = choice["message"]["content"] or "" if self.chat else choice["text"]
        if not isinstance(text, str):
            raise ValueError("a completion that is no text")
        values = _token_log_probabilities(choice.get("logprobs"))
        if choice["finish_reason"] not in ("stop", "length"):
            raise ModelError(f"{self.name} finished for {choice['finish_reason']!r}: {text[:80]!r}")
        if values is None:
            tokens, total = int(usage.get("completion_tokens") or 0), None
        else:
            tokens, total = len(values), math.fsum(values)
        return Completion(text, tokens, choice["finish_reason"], total)

    def _map(self, function, prompts):
        pool = ThreadPoolExecutor(min(self.concurrency, len(prompts)) or 1)
        try:
            return list(pool.map(function, prompts))
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, path: str, body: dict, read):
        """Posts until there is an answer that can be read, within bounds.

        Raises:
          ModelError: refused for good, or not answered after all retries.
        """
        for attempt in range(self.retries + 1):
            wait = self.first_wait * 2**attempt * random.uniform(0.5, 1)
            try:
                with self._slots:
                    status, headers, content = self._post(path, body)
                if status == 200:
                    answer = json.loads(content)
                    value = read(answer)
                    self._count(answer.get("usage") or {})
                    return value
                kind, detail = f"status {status}", content.decode(errors="replace")
                wait = max(wait, _retry_after(headers))
            except httpx2.TransportError as error:
                status, kind, detail = None, type(error).__name__, str(error)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                # Cut short, or the page of some proxy.
                status, kind = None, "unreadable answer"
                detail = f"{type(error).__name__} {error}"
            with self._lock:
                self.usage.problems[kind] += 1
            if status not in (None, *_PASSING):
                break
            if attempt < self.retries:
                time.sleep(min(wait, _LONGEST_WAIT))
        raise ModelError(
            f"{self.url}{path}, asked {attempt + 1} times: {self._redacted(f'{kind}: {detail}')}"
        )

    def _post(self, path: str, body: dict) -> tuple[int, Mapping, bytes]:
        """Raises a TransportError where the whole answer takes longer than the timeout."""
        until, parts = time.monotonic() + self.timeout, []
        with self._client.stream("POST", self.url + path, json=body) as response:
            for part in response.iter_bytes():
                parts.append(part)
                # The client's own timeout is for every read, and a server may send drop by drop.
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout(f"no whole answer within {self.timeout} s")
            return response.status_code, response.headers, b"".join(parts)

    def _count(self, usage: dict) -> None:
        prompt, completion = (
            int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion")
        )
        with self._lock:
            self.usage.requests += 1
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion
            self.usage.cost += (prompt * self.prices[0] + completion * self.prices[1]) / 1e6

    def _redacted(self, text: str) -> str:
        text = " ".join(text.replace(self._key, "***").split() if self._key else text.split())
        return text[:300]

    def __reduce__(self):
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return functools.partial(Endpoint, **options), ()  # the key is read anew, never pickled


open = Endpoint


def _checked_url(url: str) -> str:
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"url is {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"url is {url!r}; give that of the API, such as http://127.0.0.1:8000/v1")
    if parts.userinfo or parts.query:
        raise UserError("url holds a user or a query; a key comes from the environment only")
    return url.rstrip("/") + "/"


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable}, which is to hold the key, is empty")
    return key


def _retry_after(headers: Mapping) -> float:
    try:
        return float(headers.get("retry-after", 0))
    except ValueError:  # a date
        return 0.0


def _token_log_probabilities(logprobs: dict | None) -> list[float] | None:
    """Of a choice's tokens, in the form of chats or in that of completions."""
    if not logprobs:
        return None
    if logprobs.get("content") is not None:
        return [token["logprob"] for token in logprobs["content"]]
    return logprobs.get("token_logprobs")


def _first_tokens(answer: dict) -> dict[str, float]:
    """The likeliest first tokens of an answer with their log-probabilities."""
    logprobs = answer["choices"][0]["logprobs"]
    if logprobs.get("content") is not None:
        top = logprobs["content"][0]["top_logprobs"]
        # Of two tokens with one text the likelier counts.
        return {token["token"]: token["logprob"] for token in reversed(top)}
    return dict(logprobs["top_logprobs"][0])
