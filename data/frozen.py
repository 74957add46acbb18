"""Rows that were made once and must not change: a json file with their hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

import files
from errors import UserError


def write(path: Path | str, rows: list, made: dict[str, Any]) -> str:
    """Writes {hash, made, rows} and returns the hash.

    Args:
      made: how the rows were made, for people.
    """
    hashed = content_hash(rows)
    files.write_json(path, {"hash": hashed, "made": made, "rows": rows}, indent=0)
    return hashed


def read(path: Path | str) -> tuple[list, str]:
    """The rows of a file and their hash.

    Raises:
      UserError: the rows are not those that the hash is of.
    """
    content = files.read_object(path)
    rows, hashed = content.get("rows"), content.get("hash")
    if not isinstance(rows, list) or content_hash(rows) != hashed:
        raise UserError(f"{path}: its rows are not those of its hash; make the file again")
    return rows, hashed


def content_hash(rows: list) -> str:
    """SHA-256 of rows as json, whatever its spaces."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
