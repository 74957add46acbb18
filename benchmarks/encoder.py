"""Turns images, videos and texts into embeddings for the benchmarks: batched, cached, in order."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data import packing
from errors import UserError


class Encoder:
    """A model's towers as functions of files and strings.

    Args:
      encode_image: uint8 [B, H, W, 3] -> [B, D].
      encode_text: int32 [B, L] -> [B, D]; L is one of text_lengths.
      encode_video: uint8 [B, T, H, W, 3] -> [B, T, D].
        All are compiled by the caller and return arrays that every process can read in full.
      load_image: path, PIL image or uint8 array -> uint8 [H, W, 3] as the model takes it.
      load_video: (path or uint8 array, **sampling) -> clips uint8 [V, T, H, W, 3], likewise.
      tokenizer: has encode(texts, context_length) -> (int32 [n, L], truncated bool [n]).
      text_lengths: tokens, ascending; the last is the context length. A batch of texts is cut to
        the shortest that fits. A tower that sees padding must be given the last one only.
      batch_size: B, always: the last batch is filled up, so that every shape compiles once.
      put: lays a numpy batch out on the devices.

    Attributes:
      truncated: how many distinct texts so far were cut to fit the context.
    """

    def __init__(
        self,
        encode_image: Callable,
        encode_text: Callable,
        encode_video: Callable | None = None,
        *,
        load_image: Callable,
        load_video: Callable | None = None,
        tokenizer,
        text_lengths: Sequence[int],
        batch_size: int = 64,
        put: Callable = lambda batch: batch,
    ):
        self._encode_image, self._encode_text, self._put = encode_image, encode_text, put
        self._encode_video, self._load_video = encode_video, load_video
        self._load_image, self._batch_size = load_image, batch_size
        self._tokenizer, self._text_lengths = tokenizer, text_lengths
        self._images: dict[str, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}
        self.truncated = 0

    def images(self, items: Sequence) -> np.ndarray:
        """Embeddings of images, each path encoded once in the encoder's life.

        Args:
          items: paths, PIL images or uint8 arrays [H, W, 3].

        Returns:
          float32 [n, D], unit norm, in the order of the items.

        Raises:
          UserError: what load_image raises; a model that diverged.
        """
        names = [str(item) if isinstance(item, str | Path) else None for item in items]
        # Images in memory have no name to remember them by: they are encoded at every call.
        keys = [i if name is None else name for i, name in enumerate(names)]
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._images}
        found = dict(zip(new, self._run_images(list(new.values())), strict=True))
        self._images |= {key: row for key, row in found.items() if isinstance(key, str)}
        return np.stack([found[key] if key in found else self._images[key] for key in keys])

    def videos(self, items: Sequence, views: int, **sampling) -> np.ndarray:
        """Embeddings of the frames of clips of videos.

        Args:
          items: paths, or uint8 arrays [T, H, W, 3].
          views: V, clips of each.
          sampling: the other arguments of load_video.

        Returns:
          float32 [n, V, T, D], unit norm, in the order of the items.

        Raises:
          UserError: what load_video raises; a model that diverged.
        """
        load = functools.partial(self._load_video, views=views, **sampling)
        rows = [
            self._embed(self._encode_video, clips.reshape(-1, *clips.shape[2:]), "a video")
            for clips in self._decoded(items, load, max(1, self._batch_size // views))
        ]
        frames = np.concatenate(rows)
        return frames.reshape(len(items), views, *frames.shape[1:])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, each encoded once in the encoder's life.

        Returns:
          float32 [n, D], unit norm, in the order of the texts.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        if new:
            self._texts |= dict(zip(new, self._run_texts(new), strict=True))
        return np.stack([self._texts[text] for text in texts])

    def _run_images(self, items: list) -> Iterator[np.ndarray]:
        for pixels in self._decoded(items, self._load_image, self._batch_size):
            yield from self._embed(self._encode_image, pixels, "an image")

    def _decoded(self, items: Sequence, load: Callable, size: int) -> Iterator[np.ndarray]:
        """Batches of at most `size`; the next one is decoded while the device is at work."""
        with ThreadPoolExecutor() as pool:
            waiting: deque = deque()
            for batch in _batches(items, size):
                waiting.append([pool.submit(load, item) for item in batch])
                if len(waiting) > 1:
                    yield np.stack([future.result() for future in waiting.popleft()])
            while waiting:
                yield np.stack([future.result() for future in waiting.popleft()])

    def _run_texts(self, texts: list[str]) -> np.ndarray:
        tokens, truncated = self._tokenizer.encode(texts, self._text_lengths[-1])
        self.truncated += int(truncated.sum())
        # A causal tower pooled at the end token never sees the padding: cutting it is exact.
        lengths = packing.lengths(tokens)
        order = np.argsort(lengths, kind="stable")
        rows = []
        for batch in _batches(order, self._batch_size):
            length = next(n for n in self._text_lengths if n >= lengths[batch].max())
            rows.append(self._embed(self._encode_text, tokens[batch, :length], "a text"))
        embeddings = np.concatenate(rows)
        return embeddings[np.argsort(order)]

    def _embed(self, encode: Callable, batch: np.ndarray, what: str) -> np.ndarray:
        missing = self._batch_size - len(batch)
        full = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        rows = np.asarray(encode(self._put(full)), np.float32)[: len(batch)]
        norms = np.linalg.norm(rows, axis=-1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise UserError(
                f"the model's embedding of {what} is zero or not finite: it diverged, or a text"
                " lacks the model's end token because the tokenizer is not the model's"
            )
        return rows / norms


def _batches(items: Sequence, size: int) -> Iterator:
    return (items[start : start + size] for start in range(0, len(items), size))
