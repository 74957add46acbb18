"""Prompts with completions, and the batches that a language model learns from.

A record is {prompt, completion}, or of data/preferences.py {prompt, chosen, rejected}, all texts as
the model is to read and write them: what parts them, a space or a new line, belongs to one of them.
The loss is on the completion and on the end token behind it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data import packing
from data.pipeline import arranged, sampled_batches
from errors import UserError
from files import read_jsonl
from paths import as_path


class Texts:
    """Records in memory, seen to hold texts under certain names.

    Attributes:
      continuations: names of the texts that follow a record's prompt.
    """

    def __init__(self, path: Path, pipeline: str, continuations: tuple[str, ...]):
        self.pipeline, self.continuations = pipeline, continuations
        self._records = []
        for key, row in read_jsonl(path):
            for name in ("prompt", *continuations):
                if not isinstance(row, dict) or not isinstance(row.get(name), str):
                    raise UserError(f"{key}: {row!r:.60} should have a text '{name}'")
            texts = {name: row[name] for name in ("prompt", *continuations)}
            self._records.append({**texts, "key": key})
        if not self._records:
            raise UserError(f"{path} holds no record")

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]


def load(root: str, file: str = "train.jsonl") -> Texts:
    """A file of {"prompt": .., "completion": ..} a line.

    Args:
      root: folder that the file's path starts from.

    Raises:
      UserError: a line that is no such record; names it.
    """
    return Texts(as_path(root, file), "text", ("completion",))


def batch_fields(num_negatives: int, texts: Sequence = ()) -> tuple[str, ...]:
    """What a batch holds for the devices."""
    del num_negatives, texts
    return ("tokens", "completion")


def train_batches(
    source: Texts,
    *,
    tokenizer,
    batch_size: int,
    seed: int,
    context_length: int,
    max_tokens: int = 512,
    text_rows: Sequence[float] = (),
    shards: int = 1,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    agree: Callable[[int], int] = lambda rows: rows,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process's rows of the global batches from start_step on, without end.

    A batch, for N = batch_size / process_count and L = min(max_tokens, context_length), holds
      tokens int32 [N, L], a prompt, its completion and an end token, padded with 0;
      completion bool [N, L], which tokens are the completion's, its end among them;
      truncated bool [N], whether the completion was cut;
      text_slots int32 [shards, R, L], where the texts share rows, see data/packing.py.
    Of preferences tokens and completion are [N, 2, L], the chosen before the rejected, and
    preferred bool [N, 2] says so.

    Args:
      source: see load().
      tokenizer: of data/text_tokenizer.py.
      batch_size: records of the global batch.
      context_length: tokens that the model can take.
      max_tokens: of a prompt with its completion, of which the end is cut.
      text_rows: the values that R may have, as shares of the texts in a shard: texts are packed
        into the least of them that holds all; empty: a row for each.
      shards: parts of this process's rows that lie on devices of their own.
      workers, agree: see data/pipeline.py.

    Raises:
      UserError: from the iterator, a prompt that leaves no room for its completion.
    """
    length = min(max_tokens, context_length)
    dataset = sampled_batches(
        source,
        _Sample(tokenizer, length, source.continuations),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        workers=workers,
        process_index=process_index,
        process_count=process_count,
    )
    pack = functools.partial(_pack, text_rows=text_rows, shards=shards, agree=agree)
    return arranged(dataset, pack)


def batch_shapes(
    source: Texts,
    *,
    batch_size: int,
    context_length: int,
    max_tokens: int = 512,
    text_rows: Sequence[float] = (),
    shards: int = 1,
) -> dict[str, packing.Shapes]:
    """The global batches that train_batches() may make, by what tells them apart, small to large.

    Args:
      source: with `continuations`; nothing of it is read.
      shards: of the global batch.
    """
    length, count = min(max_tokens, context_length), len(source.continuations)
    rows = (batch_size, count) if count > 1 else (batch_size,)
    shapes = {"tokens": ((*rows, length), np.int32), "completion": ((*rows, length), np.bool_)}
    if count > 1:
        shapes["preferred"] = (rows, np.bool_)
    if not text_rows:
        return {f"{length} tokens": shapes}
    choices = packing.row_choices(text_rows, math.prod(rows) // shards)
    return {
        f"text_rows {share:g}": shapes | {"text_slots": ((shards, number, length), np.int32)}
        for share, number in choices.items()
    }


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Makes a training sample of a record; pickled to the worker processes."""

    tokenizer: object
    length: int
    continuations: tuple[str, ...]

    def __call__(self, record, rng):
        del rng
        (prompt,) = self.tokenizer.encode([record["prompt"]])
        prompt = prompt or [self.tokenizer.start_token_id]
        if len(prompt) >= self.length:
            raise UserError(
                f"{record['key']}: its prompt of {len(prompt)} tokens leaves no room in "
                f"{self.length}; raise config.data.max_tokens or take the record out"
            )
        texts = [record[name] for name in self.continuations]
        count = len(texts)
        tokens, sizes = np.zeros((count, self.length), np.int32), np.zeros(count, np.int32)
        for i, ids in enumerate(self.tokenizer.encode(texts, begin=False)):
            whole = [*prompt, *ids, self.tokenizer.eos_token_id]
            sizes[i] = len(whole)
            tokens[i, : len(whole)] = whole[: self.length]
        place = np.arange(self.length)
        completion = (place >= len(prompt)) & (place < sizes[:, None])
        sample = {
            "tokens": tokens,
            "completion": completion,
            "truncated": (sizes > self.length).any(),
            "sizes": np.minimum(sizes, self.length),
        }
        if count > 1:
            return sample | {"preferred": np.arange(count) == 0}
        return sample | {name: sample[name][0] for name in ("tokens", "completion", "sizes")}


def _pack(batch, text_rows, shards, agree):
    """A batch with text_slots, see train_batches()."""
    sizes = batch.pop("sizes").reshape(shards, -1)
    if not text_rows:
        return batch
    tokens = batch["tokens"]
    choices = packing.row_choices(text_rows, sizes.shape[1]).values()

    def choose_rows(needed):
        return agree(next(rows for rows in choices if rows >= needed))

    texts = tokens.reshape(*sizes.shape, tokens.shape[-1])
    slots, _ = packing.pack(texts, tokens.shape[-1], choose_rows, sizes)
    return batch | {"text_slots": slots}
