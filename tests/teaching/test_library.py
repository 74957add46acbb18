"""The library: found by likeness above a floor, edited by hand, and what people decide stays."""

import json

import numpy as np
import pytest

from teaching import library as module
from teaching.library import Entry, Library


def embed(texts):
    """A bag of letters."""
    counts = np.array([[t.count(c) for c in "abcdefgh"] for t in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def entry(text, **options):
    return Entry(text, text, [f"say {text}"], {"round": 1}, **options)


def test_nearest_above_a_floor():
    library = Library(embed)
    for text in ("aa", "ab", "c"):
        library.add(entry(text))
    assert [e.text for e in library.nearest("a", 3, 0.5)] == ["aa", "ab"]
    assert [e.text for e in library.nearest("a", 1, 0.5)] == ["aa"]
    assert library.nearest("d", 3, 0.5) == []
    assert Library(embed).nearest("a", 3, 0.0) == []


def test_what_a_person_decided_stays(tmp_path):
    library = Library(embed, [entry("a"), entry("b")])
    library.save(tmp_path / "library.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "library.jsonl").read_text().splitlines()]
    rows[0]["status"] = "rejected"
    rows[1] |= {"status": "edited", "text": "c", "payload": ["say what I wrote"]}
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "library.jsonl").write_text(lines)
    read = module.load(tmp_path / "library.jsonl", embed)
    read.add(entry("a"))  # proposed again
    read.add(Entry("b", "b", ["say b"]))
    assert read.nearest("a", 3, 0.1) == []
    assert read.familiarity("a") == pytest.approx(1) and read.familiarity("d") == 0
    assert Library(embed).familiarity("a") == -1
    # Found by its new text, with the new payload.
    assert [e.payload for e in read.nearest("c", 3, 0.9)] == [["say what I wrote"]]
    assert read.nearest("b", 3, 0.9) == []


def test_saved_and_read_is_the_same(tmp_path):
    library = Library(embed, [entry("a", status="approved"), entry("b")])
    library.save(tmp_path / "library.jsonl")
    first = (tmp_path / "library.jsonl").read_bytes()
    module.load(tmp_path / "library.jsonl", embed).save(tmp_path / "library.jsonl")
    assert (tmp_path / "library.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ('{"key": "x"}', "line 2: an entry has key, payload"),
        ('{"key": "a", "text": "t", "payload": 1}', "line 2: key 'a' is taken"),
        ('{"key": "x", "text": "t", "payload": 1, "status": "good"}', "line 2: unknown status"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    Library(embed, [entry("a")]).save(tmp_path / "library.jsonl")
    with (tmp_path / "library.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        module.load(tmp_path / "library.jsonl", embed)
    with pytest.raises(ValueError, match="unknown status of entry a 'nice'.*there are: proposed"):
        Library(embed, [entry("a", status="nice")])
