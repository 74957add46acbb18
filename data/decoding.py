"""Decodes images ahead of the device that they are for, in threads or worker processes."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np

from data.images import Stored

MANY_IMAGES = 512  # encoded ones: from here on processes decode, which take seconds to start


class Decoder:
    """Decodes images ahead of the device; several encoders may share what one has decoded.

    Args:
      load_image: path, bytes, PIL image, array or Crop -> uint8 [H, W, 3] as the model takes it;
        picklable.
      workers: processes; None: one for each core where there are MANY_IMAGES, else threads.
      keep_bytes: how much of what was decoded is remembered for the next encoder.
    """

    def __init__(self, load_image: Callable, *, workers: int | None = None, keep_bytes: int = 0):
        self.load_image, self._workers, self._room = load_image, workers, keep_bytes
        self._kept: dict[str, np.ndarray] = {}

    def batches(self, items: Sequence, keys: Sequence[str], size: int) -> Iterator[np.ndarray]:
        """Batches of at most `size`, in order, while the next ones are being decoded."""
        new = [(key, item) for key, item in zip(keys, items, strict=True) if key not in self._kept]
        with self._pool(sum(not isinstance(item, np.ndarray) for _, item in new)) as pool:
            # What a source holds is read here: a worker would have to open the source for each.
            ready = (item.read() if isinstance(item, Stored) else item for _, item in new)
            decoded = decoded_in_order(pool, self.load_image, ready, 2 * size)
            for batch in batches_of(keys, size):
                pixels = []
                for key in batch:
                    pixels.append(self._kept[key] if key in self._kept else next(decoded))
                    self._keep(key, pixels[-1])
                yield np.stack(pixels)

    def _keep(self, key: str, pixels: np.ndarray) -> None:
        if key not in self._kept and pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._kept[key] = pixels

    def _pool(self, number: int) -> Executor:
        workers = self._workers
        if workers is None and number >= MANY_IMAGES:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        if not workers or not number:
            return ThreadPoolExecutor()
        # Not forked: jax has threads.
        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def decoded_in_order(pool: Executor, load: Callable, items: Iterable, ahead: int) -> Iterator:
    """load(item) of every item, at most `ahead` of them begun before they are needed."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(load, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def batches_of(items: Sequence, size: int) -> Iterator:
    return (items[start : start + size] for start in range(0, len(items), size))
