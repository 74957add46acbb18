"""A library of entries that are found by likeness, in a json lines file that a person can edit."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError
from files import read_jsonl, write_jsonl
from options import check_known

STATUSES = ("proposed", "approved", "edited", "rejected")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A text to be found by, and what it is worth knowing for.

    Attributes:
      payload: plain json, such as a list of strategies.
      provenance: where it comes from: episode, round, names of models, verdicts.
      status: of STATUSES. Set by a person, it is respected: what is rejected is never used, and
        never proposed again.
    """

    key: str
    text: str
    payload: Any
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    status: str = "proposed"

    def __post_init__(self):
        check_known(f"status of entry {self.key}", self.status, STATUSES)


class Library:
    """Entries with unit vectors of their texts.

    Args:
      embed: texts -> unit vectors [n, d]; library.vectors is the same.
    """

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray], entries: Sequence[Entry] = ()):
        self.vectors = embed
        self.entries = {entry.key: entry for entry in entries}
        texts = [entry.text for entry in self.entries.values()]
        self._of_entries = dict(zip(self.entries, embed(texts) if texts else (), strict=True))

    def add(self, entry: Entry) -> None:
        """Puts in an entry, or replaces the one of its key unless a person has judged that."""
        old = self.entries.get(entry.key)
        if old is None or old.status == "proposed":
            self.entries[entry.key] = entry
            self._of_entries[entry.key] = self.vectors([entry.text])[0]

    def similarities(self, text: str, rejected: bool = False) -> list[tuple[float, Entry]]:
        """(cosine, entry), the nearest first; with `rejected`, what must not be used too."""
        keys = [k for k, e in self.entries.items() if rejected or e.status != "rejected"]
        if not keys:
            return []
        cosines = np.stack([self._of_entries[key] for key in keys]) @ self.vectors([text])[0]
        order = np.argsort(-cosines, kind="stable")
        return [(float(cosines[i]), self.entries[keys[i]]) for i in order]

    def nearest(self, text: str, k: int, floor: float) -> list[Entry]:
        """The k nearest usable entries whose cosine is at least the floor."""
        return [e for cosine, e in self.similarities(text)[:k] if cosine >= floor]

    def familiarity(self, text: str) -> float:
        """The cosine of the nearest entry, usable or rejected; -1 where there is none."""
        similar = self.similarities(text, rejected=True)
        return similar[0][0] if similar else -1.0

    def save(self, path: Path) -> None:
        """A line an entry; the text that its vector is of is the text itself, so edits count."""
        write_jsonl(path, map(dataclasses.asdict, self.entries.values()))


def load(path: Path, embed: Callable) -> Library:
    """The library of a file.

    Raises:
      UserError: a line that is no entry, or a key that occurs twice; it is named.
    """
    names = {field.name for field in dataclasses.fields(Entry)}
    entries: dict[str, Entry] = {}
    for where, row in read_jsonl(path):
        if not isinstance(row, dict) or not {"key", "text", "payload"} <= row.keys() <= names:
            raise UserError(f"{where}: an entry has {', '.join(sorted(names))}")
        if row["key"] in entries:
            raise UserError(f"{where}: key {row['key']!r} is taken")
        try:
            entries[row["key"]] = Entry(**row)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return Library(embed, list(entries.values()))
