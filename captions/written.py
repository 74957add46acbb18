"""The folder that captions.generate writes: array_record files that TFDS reads, and who reads them.

for row in tfds.builder_from_directory(FOLDER).as_data_source(split="train"): ...
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import files
from errors import UserError
from paths import on_disk

INDEX = "index.npy"  # uint64 [rows], what stands for a row's image and caption
_NAME, _SPLIT, _FORMAT = "negatives", "train", "array_record"
FIELDS = ("text", "type", "writer", "model", "prompt_version", "seed", "attempts")


def save_shard(folder: Path, shard: int, shards: int, rows: Iterable[dict]) -> None:
    """Writes one of the folder's files whole, or not at all."""
    from array_record.python.array_record_module import ArrayRecordWriter

    features = _features()
    path = folder / f"{_NAME}-{_SPLIT}.{_FORMAT}-{shard:05d}-of-{shards:05d}"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    writer = ArrayRecordWriter(str(part), "group_size:1")
    for row in rows:
        writer.write(features.serialize_example(features.encode_example(row)))
    writer.close()
    part.replace(path)


def seal(folder: Path, shard_lengths: Sequence[int], keys: Sequence[int], about: str) -> None:
    """Makes the files of save_shard() a data set of TFDS.

    Args:
      shard_lengths: rows in each file.
      keys: key() of each row.
    """
    import tensorflow_datasets as tfds

    split = tfds.core.SplitInfo(
        name=_SPLIT,
        shard_lengths=list(shard_lengths),
        num_bytes=sum(path.stat().st_size for path in folder.glob(f"{_NAME}-*")),
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=_NAME, split=_SPLIT, filetype_suffix=_FORMAT
        ),
    )
    np.save(folder / INDEX, np.array(keys, np.uint64))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(),
        split_infos=[split],
        description=about,
        check_data=False,  # would need TensorFlow
    )


def key(image: str, caption: str) -> int:
    """64 bits that stand for a caption of an image."""
    digest = hashlib.blake2b(f"{image}\0{caption}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Written:
    """What such a folder holds: rows by number, and by image and caption; picklable.

    Raises:
      UserError: it is no such folder, or not complete.
    """

    def __init__(self, folder: str | Path):
        import tensorflow_datasets as tfds

        self.folder = on_disk(folder, what="written captions")
        if not (self.folder / INDEX).is_file() or not (self.folder / "features.json").is_file():
            hint = "python -m captions.generate writes such folders"
            if (self.folder / "run.json").is_file():
                hint = "its run has not come to an end: give the same command again"
            raise UserError(f"{folder} is no folder of written captions: {hint}")
        keys = np.load(self.folder / INDEX)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        builder = tfds.builder_from_directory(self.folder)
        self._rows = builder.as_data_source(split=_SPLIT)
        if len(self._rows) != len(keys):
            raise UserError(f"{folder} holds {len(self._rows)} rows, but its index {len(keys)}")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = self._rows[index]
        columns = row["negatives"]
        values = zip(*(map(_plain, columns[name]) for name in FIELDS), strict=True)
        return {
            "image": _plain(row["image"]),
            "caption": _plain(row["caption"]),
            "negatives": [dict(zip(FIELDS, value, strict=True)) for value in values],
        }

    def find(self, image: str, caption: str) -> dict | None:
        """The row for a caption of an image, None if there is none."""
        wanted = np.uint64(key(image, caption))
        at = int(np.searchsorted(self._keys, wanted))
        if at == len(self._keys) or self._keys[at] != wanted:
            return None
        row = self[int(self._order[at])]
        return row if (row["image"], row["caption"]) == (image, caption) else None


def export_json(rows: Iterable[dict], file: Path, of: str = "caption") -> None:
    """Writes DeGLA's `[{image_id, original, enhanced: [..]}]`, for training with other code too.

    A caption without a single negative is left out. Of classes it is {"0": "name: description"},
    which data/video.py reads; a class without a description is described by its name.
    """
    with_texts = ((row, [negative["text"] for negative in row["negatives"]]) for row in rows)
    if of == "class":
        lines = (f"{row['caption']}: {(texts or [''])[0]}" for row, texts in with_texts)
        content = {str(label): line.removesuffix(": ") for label, line in enumerate(lines)}
    else:
        content = [
            {"image_id": row["image"], "original": row["caption"], "enhanced": texts}
            for row, texts in with_texts
            if texts
        ]
    files.write_json(file, content, ensure_ascii=False)


def _features():
    import tensorflow_datasets as tfds

    text = tfds.features.Text
    negative = {name: np.int64 if name in ("seed", "attempts") else text() for name in FIELDS}
    return tfds.features.FeaturesDict(
        {"image": text(), "caption": text(), "negatives": tfds.features.Sequence(negative)}
    )


def _plain(value) -> str | int:
    return value.decode() if isinstance(value, bytes) else int(value)
