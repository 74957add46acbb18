"""Reading annotation files: rows with checked fields, and which images are there.

json, jsonl, csv, tsv, and parquet as hubs serve it, whose cells may hold whole images.
"""

import ast
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import files
from data import frozen
from data.images import Crop
from errors import UserError
from paths import open_binary


class Row(dict):
    """One row of a file: its fields, its own name in the file, and where it stands."""

    def __init__(self, fields: Mapping, key: str, where: str):
        super().__init__(fields)
        self.key, self.where = key, where

    def field(self, name) -> Any:
        """A field; UserError where it is missing."""
        if self.get(name) is None:
            names = ", ".join(map(str, self))
            raise UserError(f"{self.where}: no {name!r}; it has {names}")
        return self[name]

    def text(self, name) -> str:
        """A text that is not empty."""
        return self._checked(self.field(name), name)

    def texts(self, name, empty: bool = False) -> list[str]:
        """A list of texts, also where it is written as a Python literal in a cell.

        Args:
          empty: whether one may be empty.
        """
        value = self.field(name)
        if isinstance(value, str) and value.lstrip().startswith(("[", "(")):
            try:
                value = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                raise UserError(f"{self.where}: {name!r} is no list: {value!r:.60}") from None
        if not isinstance(value, list | tuple) or not value:
            raise UserError(f"{self.where}: {name!r} should be a list of texts: {value!r:.60}")
        return [
            text if empty and text == "" else self._checked(text, f"{name}[{i}]")
            for i, text in enumerate(value)
        ]

    def number(self, name) -> int:
        """A whole number."""
        try:
            return int(self.field(name))
        except (TypeError, ValueError):
            raise UserError(f"{self.where}: {name!r} is no number: {self[name]!r:.60}") from None

    def crop(self, image, names: Sequence[str]):
        """The image cropped to the box in these fields: left, top, width, height."""
        return Crop(image, tuple(map(self.number, names)))

    def image(self, name, folder="", suffix="") -> str | bytes:
        """An image: the path that the field names below a folder, or the bytes that it holds."""
        value = self.field(name)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str | int) or not str(value).strip():
            raise UserError(f"{self.where}: {name!r} names no image: {value!r:.60}")
        return os.path.join(folder, f"{value}{suffix}")

    def _checked(self, value, name) -> str:
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: {name!r} should be a text: {value!r:.60}")
        return value


def rows(path: Path | str, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a file, by the end of its name.

    json holds a list, or an object of rows by their ids; a row that is a list has numbers for the
    names of its fields, and one that is neither has the name 0 for itself. A row's key is its id,
    else its name or number in the file.

    Args:
      columns: what every row must have.

    Raises:
      UserError: no such file, not of its kind, no rows, or a column that is missing.
    """
    suffix = PurePath(path).suffix
    if suffix in (".csv", ".tsv"):
        named = files.read_table(path, columns, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".jsonl":
        named = files.read_jsonl(path)
    else:
        content = _parquet(path) if suffix == ".parquet" else files.read_json(path)
        if not isinstance(content, dict | list):
            raise UserError(f"{path}: expected a list or an object of rows: {content!r:.60}")
        numbered = content.items() if isinstance(content, dict) else enumerate(content)
        named = ((f"{path}: row {name!r}", fields, name) for name, fields in numbered)
    rows = []
    for number, (where, fields, *name) in enumerate(named):
        if not isinstance(fields, Mapping):
            fields = dict(enumerate(fields)) if isinstance(fields, list) else {0: fields}
        rows.append(Row(fields, str(fields.get("id", *name or [number])), where))
        for column in columns:
            rows[-1].field(column)
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def frozen_rows(path: Path | str, expected: str = "") -> list[Row]:
    """The rows of a file of data/frozen.py.

    Args:
      expected: their hash, where only certain rows will do.

    Raises:
      UserError: they are others, or not those that the file's own hash is of.
    """
    contents, hashed = frozen.read(path)
    if expected and expected != hashed:
        raise UserError(f"{path}: its hash is {hashed}, not {expected}")
    return [Row(row, str(i), f"{path}: row {i}") for i, row in enumerate(contents)]


def _parquet(path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_binary(path) as file:
            return pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a parquet file ({error})") from None
