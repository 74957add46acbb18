"""Tar shards of images with a text or json file each, as webdataset and img2dataset write them.

Shards are read by index, not as a stream: the order of a run is a function of its seed and step,
resumes exactly, and does not depend on the number of hosts. The index is made once, and read where
it lies: a run over hundreds of millions of pairs starts within seconds.
"""

import functools
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from errors import MissingFileError, UserError
from files import parse_json, read_object, write_json
from paths import as_path, file_size, glob, local_copy, open_binary, read_range, whole

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")  # of a sample with both, the first
_BLOCK = 512  # bytes of a member's header, before its content
_ROW = np.dtype(
    [("shard", "<u4"), ("image", "<u8"), ("image_size", "<u4"), ("text", "<u8")]
    + [("text_size", "<u4"), ("is_json", "?")]
)


class _Member(NamedTuple):
    offset: int
    size: int


def load(root, shards="*.tar", index="", caption="caption"):
    """The samples of all shards, in the order of their names.

    Args:
      root: folder of the shards.
      shards: glob pattern of their names.
      index: folder for the index; empty: beside the shards.
      caption: key of the caption, a text or a list of texts, in a sample's json file; a sample
        with a txt file takes its caption from there.

    Raises:
      MissingFileError: no shard is there.
      UserError: a shard is not whole or compressed, or a sample lacks its image or caption.
    """
    paths = glob(root, shards)
    if not paths:
        raise MissingFileError(f"{root} holds no shard {shards}; set data.options.shards")
    folder = as_path(index or root)
    names, table = folder / "index.json", folder / "index.bin"
    about = {"shards": {path.name: file_size(path) for path in paths}}
    if not names.is_file() or read_object(names) != about or not table.is_file():
        _write_index(paths, table)
        write_json(names, about)
    return Shards(paths, table, caption)


class Shards:
    """Samples by number; pickled to worker processes without what is open."""

    def __init__(self, paths: list[Path], table: Path, caption: str):
        self._paths, self._table, self._caption = list(map(str, paths)), str(table), caption

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        return np.memmap(local_copy(self._table), _ROW, "r")

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, i):
        row = self._rows[i]
        image = self._read(row["shard"], row["image"], row["image_size"])
        return {"image": image, "captions": self.captions(i), "key": self._key(row)}

    def without_image(self, i):
        return {"captions": self.captions(i), "key": self._key(self._rows[i])}

    def captions(self, i) -> list[str]:
        """The captions of a sample alone; its image is not read."""
        row = self._rows[i]
        text = self._read(row["shard"], row["text"], row["text_size"])
        key = self._key(row)
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{key}: its text is not UTF-8 ({error.reason})") from None
        if not row["is_json"]:
            captions = [text.strip()]
        else:
            content = parse_json(text, key)
            captions = content.get(self._caption) if isinstance(content, dict) else None
            captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list) or not captions or not all(map(_is_text, captions)):
            raise UserError(
                f"{key} has no caption: {captions!r:.60} (data.options.caption={self._caption})"
            )
        return captions

    def _read(self, shard, offset, size) -> bytes:
        content = read_range(self._paths[shard], int(offset), int(size))
        if len(content) < size:
            raise UserError(f"{self._paths[shard]} was cut short since its index was made")
        return content

    def _key(self, row) -> str:
        """Shard and name of a sample, for messages and for splitting."""
        header = self._read(row["shard"], row["image"] - _BLOCK, _BLOCK)
        name = header[:100].rstrip(b"\0").decode(errors="replace")
        return f"{PurePosixPath(self._paths[row['shard']]).name}/{_key_and_ending(name)[0]}"


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _key_and_ending(name: str) -> tuple[str, str]:
    """webdataset's rule: the file name up to its first dot, and what follows, in small letters."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", ending.lower()


def _write_index(paths: list[Path], table: Path) -> None:
    # Threads: a shard is mostly waited for. All processes may index at the same time.
    try:
        with ThreadPoolExecutor(8) as pool, whole(table) as temporary, temporary.open("wb") as file:
            rows = pool.map(_index_shard, range(len(paths)), paths)
            for shard in tqdm(rows, f"indexing the shards in {paths[0].parent}", len(paths)):
                file.write(shard.tobytes())
    except OSError as error:
        raise UserError(
            f"cannot write the index {table}: {error.strerror or error}; name a folder for it in "
            "data.options.index"
        ) from None


def _index_shard(number: int, path: Path) -> np.ndarray:
    """The rows of a shard's samples: consecutive members of one key."""
    samples = {}
    try:
        with open_binary(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, ending = _key_and_ending(member.name)
                if member.isfile() and key and ending in (*IMAGES, *TEXTS):
                    kind = "image" if ending in IMAGES else ending
                    sample = samples.setdefault(key, {})
                    if kind in sample:
                        raise UserError(f"{path}: the sample {key} has two files of {kind}")
                    sample[kind] = _Member(member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is no whole tar file that is not compressed ({error}); fetch it again, or "
            "decompress it"
        ) from None
    size, rows = file_size(path), []
    for key, sample in samples.items():
        if "image" not in sample or not sample.keys() & set(TEXTS):
            lacking = f"text ({', '.join(TEXTS)})" if "image" in sample else "image"
            raise UserError(f"{path}: the sample {key} has no {lacking}")
        if max(member.offset + member.size for member in sample.values()) > size:
            raise UserError(f"{path} ends in the middle of the sample {key}; fetch it again")
        text = sample.get("txt", sample.get("json"))
        rows.append((number, *sample["image"], *text, "txt" not in sample))
    return np.array(rows, _ROW)
