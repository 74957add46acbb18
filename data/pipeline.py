"""The Grain pipeline: training batches as a pure function of (seed, step).

No state is saved or restored: a run that resumes asks for the batches from its step on, with
any number of worker processes and hosts.
"""

import atexit
import dataclasses
import functools
import itertools
import multiprocessing
import operator
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import grain
import numpy as np
from absl import flags

from data import images, packing, roles, sources
from data.readers import (
    CONTEXT_LENGTH,
    SLOTS,
    STARTS,
    Pack,
    Reader,
    cut,
    everyone,
    packed,
    with_common_rows,
)
from errors import UserError

# Without end, Grain's lengths would overflow where a process has one sample of a batch.
_MOST_SAMPLES = 2**50


def train_batches(
    source,
    *,
    tokenizer,
    batch_size: int,
    seed: int,
    image_size: int,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    context_length: int = CONTEXT_LENGTH,
    causal: bool = True,
    text_lengths: Sequence[int] = (16, 24, 32, 48, CONTEXT_LENGTH),
    text_rows: Sequence[float] = (),
    shards: int = 1,
    num_negatives: int = 0,
    make_negatives: Callable | None = None,
    texts: Sequence[tuple[str, int, int]] = (),
    readers: Mapping[str, Mapping] = MappingProxyType({}),
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    agree: Callable[[int], int] = lambda length: length,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process's rows of the global batches from start_step on, without end.

    Each epoch is shuffled anew and loses the records that do not fill a last batch. Each record
    gives one of its captions, drawn anew each epoch, and K negatives of that caption: all that it
    has or K of them without replacement, or what `make_negatives` gives.

    A batch, for N = batch_size / process_count, holds
      image uint8 [N, image_size, image_size, 3]; text int32 [N, L]; truncated bool [N], whether
      a text was cut to fit the context; filled int32 [N], negatives of another type than wanted;
      and if K > 0: negatives int32 [N, K, L], negatives_valid bool [N, K];
      and for further texts: texts:<role> int32 [N, M, L], or [N, M, G, L] of groups of G > 1, and
    valid:<role> bool [N, M];
      and if text_rows are given: text_slots int32 [shards, R, context_length] and text_starts int32
    [shards, texts / shards], see data/packing.py, of each sample's caption, negatives and further
    texts in the order of their roles' names;
      and for each of the readers, with its name and a slash in front of theirs, the fields that are
    its own.

    Args:
      source: records, see data/sources.py.
      batch_size: samples of the global batch.
      crop_scale: least and greatest area of the random crop, as a share of the image.
      context_length: tokens that the text tower can take.
      causal: whether it is CLIP's; one that sees its padding has its texts neither cut nor packed.
      text_lengths: the values that L may have; L is the least that cuts no token of the batch.
      text_rows: the values that R may have, as shares of the texts in a shard: texts are packed
        into the least of them that holds all, and are not cut.
      shards: parts of this process's rows that lie on devices of their own.
      num_negatives: K.
      make_negatives: (record, i, rng) -> (K texts, K whether valid, how many were filled) for
        caption i of a record; picklable. None: the records bring them.
      texts: (role, M, G) of further texts, see data/roles.py.
      readers: by name the arguments of Reader, of models beside the student, see data/readers.py.
      workers: decoding processes; 0 decodes in this one.
      agree: largest of an int over all processes, so that all of them choose the same L and R.

    Raises:
      UserError: batch_size too large or not divisible; negatives wanted but absent; and from the
        iterator, an image that cannot be decoded.
    """
    if num_negatives and not make_negatives:
        check_negatives(source)
    roles.check(source, texts)
    reading = everyone(Reader(tokenizer, context_length, causal, image_size), readers)
    sample = _Sample(reading, crop_scale, num_negatives, make_negatives, texts)
    own_texts = {prefix: reader for prefix, reader in reading.items() if reader.tokenizer}
    to_pack = [prefix for prefix, reader in own_texts.items() if reader.causal and text_rows]
    dataset = sampled_batches(
        source,
        sample,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        workers=workers,
        process_index=process_index,
        process_count=process_count,
        pieces=shards,
        finish=Pack(to_pack),
    )

    def arrange(batch):
        for prefix, reader in own_texts.items():
            own = {name[len(prefix) :]: x for name, x in batch.items() if name.startswith(prefix)}
            if prefix in to_pack:
                own = with_common_rows(own, text_rows, agree)
            else:
                own = cut(own, reader.lengths(text_lengths), agree)
            batch = batch | {prefix + name: x for name, x in own.items()}
        return batch

    return arranged(dataset, arrange, pieces=shards)


def sampled_batches(
    source,
    sample: Callable,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    pieces: int = 1,
    finish: Callable[[dict], dict] | None = None,
) -> grain.IterDataset:
    """This process's rows of the global batches from start_step on, see train_batches().

    Args:
      sample: (record, rng) -> dict of arrays, a row of the batch; pickled to the workers.
      pieces: equal parts of a batch, which come one after another and arranged() joins. A worker
        makes a piece at a time, and holds two in shared memory at most.
      finish: a piece of a batch -> what a worker hands out of it; pickled to the workers.
    """
    ways = process_count * pieces
    if batch_size % ways:
        parts = f" times {pieces} shards of the batch" if pieces > 1 else ""
        raise UserError(
            f"batch_size {batch_size} is not divisible by {process_count} processes{parts}"
        )
    kept = steps_per_epoch(len(source), batch_size) * batch_size
    dataset = (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()[:kept]
        .repeat(_MOST_SAMPLES // kept)
        .random_map(sample)
        .batch(batch_size // ways)
    )
    # Whole batches go to the processes in turn: laid side by side on the devices they make the
    # global batch in the same order for any number of processes.
    first = process_index * pieces
    in_turn = [dataset[i::ways] for i in range(first, first + pieces)]
    dataset = grain.MapDataset.mix(in_turn)[start_step * pieces :]
    dataset = dataset.map(finish) if finish else dataset
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    if not workers:
        return dataset
    if not flags.FLAGS.is_parsed():  # outside absl.app; Grain's workers read its flags
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers)
    return dataset.mp_prefetch(options, _end_with_parent)


def _end_with_parent(worker: int, workers: int) -> None:
    """Else workers outlive a run that was killed, and wait for ever with their shared memory."""
    del worker, workers

    def wait_and_end():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def batch_fields(num_negatives: int, texts: Sequence[tuple[str, int, int]] = ()) -> tuple[str, ...]:
    """What a batch holds for the devices; the arguments are those of train_batches()."""
    negatives = ("negatives", "negatives_valid") if num_negatives else ()
    return ("image", "text", *negatives, *roles.fields(texts))


def batch_shapes(
    source,
    *,
    tokenizer,
    batch_size: int,
    image_size: int,
    context_length: int = CONTEXT_LENGTH,
    causal: bool = True,
    text_lengths: Sequence[int] = (16, 24, 32, 48, CONTEXT_LENGTH),
    text_rows: Sequence[float] = (),
    shards: int = 1,
    num_negatives: int = 0,
    texts: Sequence[tuple[str, int, int]] = (),
    readers: Mapping[str, Mapping] = MappingProxyType({}),
) -> dict[str, packing.Shapes]:
    """The global batches that train_batches() may make, by what tells them apart, small to large.

    Args:
      source: not read.
      shards: of the global batch.
    """
    n, fields, valid = batch_size, {"text": ()}, {}
    if num_negatives:
        fields["negatives"] = (num_negatives,)
        valid["negatives_valid"] = ((n, num_negatives), np.bool_)
    for role, count, group in texts:
        fields[roles.TEXTS + role] = (count, group) if group > 1 else (count,)
        valid[roles.VALID + role] = ((n, count), np.bool_)
    reading = everyone(Reader(tokenizer, context_length, causal, image_size), readers)
    choices = [
        [
            (f"{prefix}{label}", {prefix + name: shape for name, shape in own.items()})
            for label, own in reader.shapes(n, fields, text_lengths, text_rows, shards).items()
        ]
        for prefix, reader in reading.items()
    ]
    batches = {}
    for chosen in itertools.product(*choices):
        labels = [label for (label, _), of_one in zip(chosen, choices, strict=True) if of_one[1:]]
        shapes = functools.reduce(operator.or_, (own for _, own in chosen), valid)
        batches[", ".join(labels) or chosen[0][0]] = shapes
    return batches


def steps_per_epoch(num_records: int, batch_size: int) -> int:
    """Full batches in an epoch."""
    if num_records < batch_size:
        raise UserError(f"batch_size {batch_size} is larger than the data: {num_records} records")
    return num_records // batch_size


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Makes a training sample of a record; pickled to the worker processes."""

    readers: Mapping[str, Reader]
    crop_scale: tuple[float, float]
    num_negatives: int
    make_negatives: Callable | None
    further: Sequence[tuple[str, int, int]] = ()

    def __call__(self, record, rng):
        i = int(rng.integers(len(record["captions"])))
        negatives, valid, filled = self._negatives(record, i, rng)
        sizes = {reader.image_size for reader in self.readers.values()} - {None}
        try:
            crops = images.train_images(record["image"], sizes, rng, self.crop_scale)
        except UserError as error:
            raise UserError(f"{record['key']}: {error}") from None
        further = {role: roles.draw(record, i, rng, role, *size) for role, *size in self.further}
        texts = [record["captions"][i], *negatives]
        texts += [text for drawn, _ in further.values() for text in drawn]
        sample = {"truncated": np.False_, "filled": np.int32(filled)}
        if negatives:
            sample["negatives_valid"] = np.array(valid, bool)
        for prefix, reader in self.readers.items():
            if reader.image_size is not None:
                sample[f"{prefix}image"] = crops[reader.image_size]
            if reader.tokenizer is None:
                continue
            tokens, truncated = reader.tokenizer.encode(texts, reader.context_length)
            sample["truncated"] |= truncated.any()
            start = 1 + len(negatives)
            own = {"text": tokens[0]} | ({"negatives": tokens[1:start]} if negatives else {})
            own |= {
                name: x
                for name, x in roles.arrays(further, tokens[start:]).items()
                if not prefix or name.startswith(roles.TEXTS)
            }
            sample |= {prefix + name: x for name, x in own.items()}
        return sample

    def _negatives(self, record, i, rng):
        """(K texts, K whether valid, how many were filled) for caption i of a record."""
        slots = self.num_negatives
        if not slots:
            return [], [], 0
        if wants_none(record):
            return [""] * slots, [False] * slots, 0
        if self.make_negatives:
            return self.make_negatives(record, i, rng)
        texts = negatives_of(record, i)
        if len(texts) > slots:
            texts = [texts[k] for k in sorted(rng.choice(len(texts), slots, replace=False))]
        empty = slots - len(texts)
        return texts + [""] * empty, [True] * len(texts) + [False] * empty, 0


def negatives_of(record, i) -> list[str]:
    """The negatives that a record brings for its caption i."""
    negatives = record.get("negatives") or []
    return negatives[i] if negatives and isinstance(negatives[0], list) else negatives


def wants_none(record) -> bool:
    """Whether a record is to have no negatives, see data/mixture.py."""
    return "negatives" in record and record["negatives"] is None


def check_negatives(source) -> None:
    """Raises UserError, naming the record, where a caption has no negatives.

    A source with an attribute num_negatives promises them, and is not read.
    """
    if getattr(source, "num_negatives", 0):
        return
    for record in (sources.without_image(source, i) for i in range(len(source))):
        for i, caption in enumerate(record["captions"]):
            if not wants_none(record) and not negatives_of(record, i):
                raise UserError(
                    f"{record['key']} has no negatives for {caption!r}, and the method needs them: "
                    "use data with negatives, or have them written by rule"
                )


def arranged(dataset, arrange: Callable[[dict], dict], pieces: int = 1) -> Iterator[dict]:
    """The batches of sampled_batches(), each arranged for the model.

    The next one is put together in a thread meanwhile; arrange is called in the caller's, where
    processes may agree.
    """
    source, stopped = iter(dataset), threading.Event()

    def join():
        parts = [next(source) for _ in range(pieces) if not stopped.is_set()]
        return _joined(parts) if len(parts) == pieces else None

    thread = ThreadPoolExecutor(1)

    def stop():
        nonlocal source
        stopped.set()
        thread.shutdown()
        source.close()
        source = None  # Grain's finalizers fail where they run last

    atexit.register(stop)  # before what it would need is gone
    try:
        coming = thread.submit(join)
        while True:
            batch = coming.result()
            coming = thread.submit(join)
            yield arrange(batch)
    finally:
        atexit.unregister(stop)
        stop()


def _joined(pieces: Sequence[dict]) -> dict:
    """Copied: a worker's arrays lie in shared memory, which dies before they may."""
    joined = {name: [piece[name] for piece in pieces] for name in pieces[0]}
    for name in joined:
        if name.endswith(SLOTS):
            starts = [piece[name.replace(SLOTS, STARTS)] for piece in pieces]
            rows = max(slots.shape[1] for slots in joined[name])
            joined[name] = list(
                map(packing.with_rows, joined[name], starts, itertools.repeat(rows))
            )
    return {name: np.concatenate(parts) for name, parts in joined.items()}


def pack_texts(batch, text_rows, shards=1, agree=lambda rows: rows):
    """A batch with text_slots and text_starts, see train_batches()."""
    return with_common_rows(batch | packed(batch, shards), text_rows, agree)
