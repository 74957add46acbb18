"""Parquet files as Hugging Face writes them: encoded images inside, texts beside them."""

import bisect
import functools
import itertools
from pathlib import Path

import pyarrow
from pyarrow import parquet

from errors import MissingFileError, UserError
from paths import file_system, glob

_CACHED_GROUPS = 4  # row groups that a process keeps; a record is read with its whole group


def load(root, files="**/*.parquet", image="image", text="text"):
    """The rows of all files, in the order of their names.

    Args:
      root: folder of the files.
      files: glob pattern below it.
      image: column of {bytes, path}, the encoded image; or of its bytes alone.
      text: column of a text or a list of texts.

    Raises:
      MissingFileError: no file is there.
      UserError: a file is no parquet or lacks a column, or its images are addresses.
    """
    paths = glob(root, files)
    if not paths:
        raise MissingFileError(f"{root} holds no file {files}; set data.options.files")
    groups = [
        (str(path), number, rows)
        for path in paths
        for number, rows in enumerate(_row_groups(path, image, text))
    ]
    rows = Rows([group for group in groups if group[2]], image, text)
    if not len(rows):
        raise UserError(f"the files {files} in {root} hold no rows")
    return rows


def _row_groups(path: Path, image: str, text: str) -> list[int]:
    """Rows in each row group of a file whose columns are what they should be."""
    try:
        with parquet.ParquetFile(str(path), filesystem=file_system(path)) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole parquet file: {error}") from None
    for column, option in ((image, "image"), (text, "text")):
        if column not in schema.names:
            raise UserError(
                f"{path} has no column {column!r}, there are {', '.join(schema.names)}; set "
                f"data.options.{option}"
            )
    kind = schema.field(image).type
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        raise UserError(
            f"{path}: the column {image!r} holds texts, addresses perhaps; fetch the images first, "
            "as img2dataset does, and read its shards with data.source=webdataset"
        )
    has_bytes = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if (
        not has_bytes
        and not pyarrow.types.is_binary(kind)
        and not pyarrow.types.is_large_binary(kind)
    ):
        raise UserError(f"{path}: the column {image!r} is {kind}; it should be {{bytes, path}}")
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


class Rows:
    """Rows by number."""

    def __init__(self, groups: list[tuple[str, int, int]], image: str, text: str):
        self._groups, self._image, self._text = groups, image, text
        self._starts = [0, *itertools.accumulate(rows for _, _, rows in groups)]

    def __len__(self):
        return self._starts[-1]

    def _locate(self, i):
        group = bisect.bisect_right(self._starts, i) - 1
        path, number, _ = self._groups[group]
        return path, number, i - self._starts[group]

    def __getitem__(self, i):
        path, group, row = self._locate(i)
        key = f"{path} row group {group} row {row}"
        value = _column(path, group, self._image)[row].as_py()
        image = value.get("bytes") if isinstance(value, dict) else value
        if not image:
            raise UserError(f"{key}: {self._image} holds no bytes, {value!r:.80}")
        return {"image": image, "captions": self.captions(i), "key": key}

    def without_image(self, i):
        path, group, row = self._locate(i)
        key = f"{path} row group {group} row {row}"
        return {"captions": self.captions(i), "key": key}

    def captions(self, i) -> list[str]:
        """The captions of a row alone; its image is not read."""
        path, group, row = self._locate(i)
        value = _column(path, group, self._text)[row].as_py()
        captions = value if isinstance(value, list) else [value]
        if not captions or not all(isinstance(c, str) and c.strip() for c in captions):
            raise UserError(
                f"{path} row group {group} row {row}: {self._text} holds no text: {value!r:.60}"
            )
        return captions


@functools.lru_cache(maxsize=2 * _CACHED_GROUPS)
def _column(path: str, group: int, name: str) -> pyarrow.ChunkedArray:
    with parquet.ParquetFile(str(path), filesystem=file_system(path)) as file:
        return file.read_row_group(group, [name]).column(name)
