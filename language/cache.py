"""Keeps every answer of a language model on disk, so that nothing is asked twice.

A folder for each model holds lines of json, in files by hash. Every line is whole in itself: it
says what was asked and what came back. Lines and files may be read, edited and deleted by hand
while no run is at work; a line that is damaged is asked for again.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from errors import FileError
from language.base import Completion, LanguageModel, Score
from paths import on_disk

SAY_EVERY_S = 30


class Cached(LanguageModel):
    """A language model whose answers are kept; see cached().

    Attributes:
      hits, misses: how many prompts, pairs or texts were found on disk, and were asked for.
    """

    def __init__(
        self, model: LanguageModel, folder: str | Path, say: Callable[[str], None] | None = None
    ):
        self._model, self._store, self._say = model, _Store(folder, model.name), say
        self.name, self.capabilities = model.name, model.capabilities
        self.batch_size, self.concurrency = model.batch_size, model.concurrency
        self.hits = self.misses = 0
        self._counting = threading.Lock()

    def _generate(self, prompts, sampling):
        options = dataclasses.asdict(sampling) | {"stop": list(sampling.stop)}
        answers = self._ask(
            [{"verb": "generate", "prompt": prompt, **options} for prompt in prompts],
            lambda part: [
                [dataclasses.asdict(completion) for completion in completions]
                for completions in self._model._generate([ask["prompt"] for ask in part], sampling)
            ],
        )
        return [[Completion(**completion) for completion in answer] for answer in answers]

    def _choices(self, prompts, options, normalize_length):
        about = {"options": options, "normalize_length": normalize_length}
        answers = self._ask(
            [{"verb": "choices", "prompt": prompt, **about} for prompt in prompts],
            lambda part: self._model._choices(
                [ask["prompt"] for ask in part], options, normalize_length
            ).tolist(),
        )
        return np.reshape(np.array(answers, np.float64), (len(prompts), len(options)))

    def _score(self, prompts, continuations):
        answers = self._ask(
            [
                {"verb": "score", "prompt": prompt, "continuation": continuation}
                for prompt, continuation in zip(prompts, continuations, strict=True)
            ],
            lambda part: [
                dataclasses.asdict(score)
                for score in self._model._score(
                    [ask["prompt"] for ask in part], [ask["continuation"] for ask in part]
                )
            ],
        )
        return [Score(**answer) for answer in answers]

    def _embed(self, texts):
        answers = self._ask(
            [{"verb": "embed", "text": text} for text in texts],
            lambda part: self._model._embed([ask["text"] for ask in part]).tolist(),
        )
        return np.array(answers, np.float32)

    def _ask(self, asks: list[dict], answer) -> list[Any]:
        """The answer to each question, from the disk or from the model, and then kept.

        Args:
          answer: a list of questions -> their answers, as json has them.
        """
        keys = [_key(ask) for ask in asks]
        answers = {key: self._store.get(key, ask) for key, ask in zip(keys, asks, strict=True)}
        missing = {key: ask for key, ask in zip(keys, asks, strict=True) if answers[key] is None}
        with self._counting:
            self.hits += len(asks) - len(missing)
            self.misses += len(missing)

        def fill(part):
            for (key, ask), value in zip(part, answer([ask for _, ask in part]), strict=True):
                self._store.put(key, ask, value)
                answers[key] = value

        rest = list(missing.items())
        parts = [rest[i : i + self.batch_size] for i in range(0, len(rest), self.batch_size)]
        # Each part is kept as soon as it is there: a killed run loses what was under way.
        pool = ThreadPoolExecutor(min(self.concurrency, len(parts)) or 1)
        start = told = time.monotonic()
        try:
            for done, future in enumerate([pool.submit(fill, part) for part in parts], 1):
                future.result()
                now = time.monotonic()
                if self._say and now - told >= SAY_EVERY_S:
                    left = (now - start) / done * (len(parts) - done) / 60
                    self._say(f"{self.name}: {done}/{len(parts)} parts, {left:.0f} min left")
                    told = now
        finally:
            pool.shutdown(cancel_futures=True)
        return [answers[key] for key in keys]


def cached(
    model: LanguageModel, folder: str | Path, say: Callable[[str], None] | None = None
) -> Cached:
    """The model, with every answer kept in the folder by (model.name, prompt, options, seed).

    Several processes may share the folder, and each may be killed at any time.

    Args:
      say: told now and then how much of what is asked at once is answered.
    """
    return Cached(model, folder, say)


class _Store:
    """Lines of json in 256 files, with an index in memory of where each lies."""

    def __init__(self, folder: str | Path, model_name: str):
        slug = re.sub(r"[^\w.-]+", "_", model_name)[:80]
        # Two names may have one slug.
        self._folder = on_disk(folder, f"{slug}-{_digest(model_name)[:8]}", what="answers")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._model_name = model_name
        self._offsets: dict[str, dict[str, int]] = {}
        self._read_until: dict[str, int] = {}
        self._lock = threading.Lock()

    def get(self, key: str, ask: dict) -> Any:
        """The answer that is kept, or None."""
        path = self._path(key)
        with self._lock:
            self._refresh(path)
            offset = self._offsets[path.name].get(key)
        if offset is None:
            return None
        with path.open("rb") as file:
            file.seek(offset)
            record = _record(file.readline())
        return record["answer"] if record and record["ask"] == ask else None

    def put(self, key: str, ask: dict, answer: Any) -> None:
        record = {"model": self._model_name, "ask": ask, "answer": answer}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._path(key).open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = b"\n" + line  # after what a killed process left unfinished
            if file.write(line) != len(line):
                raise FileError(f"cannot write to the cache {self._folder}: is the disk full?")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key[:2]}.jsonl"

    def _refresh(self, path: Path) -> None:
        """Adds to the index the lines that this or other processes have appended."""
        offsets = self._offsets.setdefault(path.name, {})
        size = path.stat().st_size if path.exists() else 0
        if size < self._read_until.get(path.name, 0):  # cleared by hand
            offsets.clear()
            self._read_until[path.name] = 0
        if size == (start := self._read_until.get(path.name, 0)):
            return
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # another process is writing it, or was killed
                if record := _record(line):
                    offsets[_key(record["ask"])] = start
                start += len(line)
        self._read_until[path.name] = start


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("ask"), dict) and "answer" in record
    return record if whole else None


def _key(ask: dict) -> str:
    return _digest(json.dumps(ask, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
