"""Arrays kept on disk by key: a database file for each thing that made them."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from errors import UserError
from paths import on_disk


class Cache:
    """Embeddings on disk, of one set of weights.

    Args:
      folder: of all caches.
      weights: names the weights, how images reach them, and the dtype that they compute in.
    """

    def __init__(self, folder: Path, weights: str):
        folder = on_disk(folder, what="the embeddings that are kept")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(weights.encode()).hexdigest()[:32]}.sqlite"
        with self._open() as database:
            database.execute("create table if not exists rows (key text primary key, row blob)")

    @contextlib.contextmanager
    def _open(self):
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path}: {error}; delete it, or name another folder with --cache"
            ) from None

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The embeddings that are there, float32 [D], by key."""
        with self._open() as database:
            rows = (
                database.execute("select row from rows where key = ?", (key,)).fetchone()
                for key in keys
            )
            return {
                key: np.frombuffer(row[0], np.float32)
                for key, row in zip(keys, rows, strict=True)
                if row
            }

    def put(self, rows: dict[str, np.ndarray]) -> None:
        """Adds embeddings by key."""
        values = ((key, row.astype(np.float32).tobytes()) for key, row in rows.items())
        with self._open() as database:
            database.executemany("insert or replace into rows values (?, ?)", values)
