"""Turns images, videos and texts into embeddings: batched, each once, cached, in order."""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data import packing
from data.array_cache import Cache
from data.decoding import Decoder, batches_of, decoded_in_order
from data.images import Crop, Stored, image_key
from errors import UserError
from paths import read_bytes

# Threads that decode: as many whole pictures, of up to 89 million pixels, are in memory at once.
_DECODERS = min(8, os.cpu_count() or 1)


class Encoder:
    """A model's towers as functions of files and strings.

    Args:
      encode_image: uint8 [B, H, W, 3] -> [B, D].
      encode_text: int32 [B, L] -> [B, D]; L is one of text_lengths.
      encode_video: uint8 [B, T, H, W, 3] -> [B, T, D].
        All are compiled by the caller and return arrays that every process can read in full.
      decoder: decodes images.
      load_video: (path or uint8 array, **sampling) -> clips uint8 [V, T, H, W, 3], likewise.
      tokenizer: has encode(texts, context_length) -> (int32 [n, L], truncated bool [n]).
      text_lengths: tokens, ascending; the last is the context length. A batch of texts is cut to
        the shortest that fits. A tower that sees padding must be given the last one only.
      batch_size: B, always: the last batch is filled up, so that every shape compiles once.
      put: lays a numpy batch out on the devices.
      cache: on disk.
      check: called before each batch; it may raise, to end a long evaluation.

    Attributes:
      truncated: how many distinct texts so far were cut to fit the context.
      encoded: how many images, and texts, the towers were given.
    """

    def __init__(
        self,
        encode_image: Callable,
        encode_text: Callable,
        encode_video: Callable | None = None,
        *,
        decoder: Decoder,
        load_video: Callable | None = None,
        tokenizer,
        text_lengths: Sequence[int],
        batch_size: int = 64,
        put: Callable = lambda batch: batch,
        cache: Cache | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self._encode_image, self._encode_text, self._put = encode_image, encode_text, put
        self._encode_video, self._load_video = encode_video, load_video
        self._decoder, self._batch_size, self._cache = decoder, batch_size, cache
        self._tokenizer, self._text_lengths = tokenizer, text_lengths
        self._check = check
        self._images: dict[str, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}
        self.truncated, self.encoded = 0, {"images": 0, "texts": 0}

    def images(self, items: Sequence) -> np.ndarray:
        """Embeddings of images, each encoded once in the encoder's life.

        Args:
          items: paths, bytes, PIL images, uint8 arrays [H, W, 3] or Crops.

        Returns:
          float32 [n, D], unit norm, in the order of the items.

        Raises:
          UserError: what load_image raises; a model that diverged.
        """
        keys = [image_key(item) for item in items]
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._images}
        self._images |= self._cached(new, _image_hash, self._run_images)
        return np.stack([self._images[key] for key in keys])

    def texts(self, texts: Sequence[str | tuple[str, ...]]) -> np.ndarray:
        """Embeddings of texts, each encoded once in the encoder's life.

        Args:
          texts: one that is a tuple is the mean of its members, of unit norm again.

        Returns:
          float32 [n, D], unit norm, in the order of the texts.
        """
        members = [text if isinstance(text, tuple) else (text,) for text in texts]
        new = {t: t for member in members for t in member if t not in self._texts}
        self._texts |= self._cached(new, _text_hash, self._run_texts)
        rows = [np.mean([self._texts[t] for t in m], axis=0) if len(m) > 1 else self._texts[m[0]]
                for m in members]  # fmt: skip
        return np.stack([_unit(row) if len(m) > 1 else row
                         for row, m in zip(rows, members, strict=True)])  # fmt: skip

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
        size = max(1, self._batch_size // views)
        with ThreadPoolExecutor(_DECODERS) as pool:
            clips = decoded_in_order(pool, load, items, 2 * size)
            batches = (np.stack([next(clips) for _ in batch]) for batch in batches_of(items, size))
            frames = np.concatenate(
                [
                    self._embed(self._encode_video, b.reshape(-1, *b.shape[2:]), "a video")
                    for b in batches
                ]
            )
        return frames.reshape(len(items), views, *frames.shape[1:])

    def _cached(self, new: dict, hash_of: Callable, run: Callable) -> dict[str, np.ndarray]:
        """Embeddings of what is new, from the disk where they are there."""
        if not self._cache or not new:
            return run(new)
        hashes = {key: hash_of(item) for key, item in new.items()}
        stored = self._cache.get(list(hashes.values()))
        missing = {key: item for key, item in new.items() if hashes[key] not in stored}
        rows = run(missing)
        self._cache.put({hashes[key]: row for key, row in rows.items()})
        return {key: rows[key] if key in rows else stored[hashes[key]] for key in new}

    def _run_images(self, new: dict) -> dict[str, np.ndarray]:
        keys, rows = list(new), []
        for pixels in self._decoder.batches(list(new.values()), keys, self._batch_size):
            rows.extend(self._embed(self._encode_image, pixels, "an image"))
        self.encoded["images"] += len(rows)
        return dict(zip(keys, rows, strict=True))

    def _run_texts(self, new: dict) -> dict[str, np.ndarray]:
        if not new:
            return {}
        tokens, truncated = self._tokenizer.encode(list(new), self._text_lengths[-1])
        self.truncated += int(truncated.sum())
        self.encoded["texts"] += len(new)
        # A causal tower pooled at the end token never sees the padding: cutting it is exact.
        lengths = packing.lengths(tokens)
        order = np.argsort(lengths, kind="stable")
        rows = []
        for batch in batches_of(order, self._batch_size):
            length = next(n for n in self._text_lengths if n >= lengths[batch].max())
            rows.append(self._embed(self._encode_text, tokens[batch, :length], "a text"))
        embeddings = np.concatenate(rows)[np.argsort(order)]
        return dict(zip(new, embeddings, strict=True))

    def _embed(self, encode: Callable, batch: np.ndarray, what: str) -> np.ndarray:
        self._check()
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


def _image_hash(item) -> str:
    """Names an image by its content, wherever its file lies."""
    box = item.box if isinstance(item, Crop) else ()
    image = item.image if isinstance(item, Crop) else item
    image = image.read() if isinstance(image, Stored) else image
    if isinstance(image, str | os.PathLike):
        image = read_bytes(image)
    return f"{image_key(image)}{box}"


def _text_hash(text: str) -> str:
    return "text:" + hashlib.sha256(text.encode()).hexdigest()


def _unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)
