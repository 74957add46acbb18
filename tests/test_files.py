"""Text, tables and json: read as their writers meant them, or refused with file and line."""

import csv
import io
import json
import math

import numpy as np
import pytest

import files
from errors import FileError, MissingFileError, UserError


def refused(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(folder, text, delimiter="\t", columns=("title", "path"), encoding="utf-8"):
    path = folder / "t.tsv"
    path.write_bytes(text.encode(encoding))
    return [row for _, row in files.read_table(path, columns, delimiter)]


HEADING = "title\tpath\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_text(tmp_path, encoding):
    path = tmp_path / "t.json"
    path.write_bytes('{"a": "caf\xe9"}'.encode(encoding))
    assert files.read_json(path) == {"a": "caf\xe9"}
    assert table(tmp_path, HEADING + "a\tb\n", encoding=encoding) == [{"title": "a", "path": "b"}]
    path.write_bytes('{"a": 1}\n{"a": 2}\n'.encode(encoding))
    assert [row["a"] for _, row in files.read_jsonl(path)] == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-32"])
def test_other_encodings_are_refused_with_their_line(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes("a\nb\ncaf\xe9".encode(encoding))
    message = refused(files.read_text, path)
    assert str(path) in message and "save the file as UTF-8" in message
    assert ("line 3" in message) == (encoding == "latin-1")


def test_what_is_not_there_or_no_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="gone.json: no such file"):
        files.read_json(tmp_path / "gone.json")
    for path in (tmp_path, tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(FileError):
            files.read_text(path)


def rows_of_pandas(rows) -> str:
    """As DataFrame.to_csv writes: csv.writer with its defaults."""
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)
    return stream.getvalue()


def test_tables_of_pandas_are_read_back(tmp_path):
    titles = ['a "stop" sign', '"quoted"', '"', "it's 5\" long", "two\nlines", "tab\there", ""]
    rows = [[title, f"{i}.jpg"] for i, title in enumerate(titles)]
    found = table(tmp_path, rows_of_pandas([["title", "path"], *rows]))
    assert [list(row.values()) for row in found] == rows


def test_random_tables_of_pandas_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows = [
            ["".join(rng.choice(list('ab "\n,\x85\u2028'), 6)).strip() or "x", f"{i}.jpg"]
            for i in range(5)
        ]
        found = table(tmp_path, rows_of_pandas([["title", "path"], *rows]))
        assert [list(row.values()) for row in found] == rows


def test_a_stray_quote_never_merges_rows(tmp_path):
    """A quote more, a quote less, anywhere: every row is one row, or the line is refused."""
    rng = np.random.default_rng(1)
    plain = [[f"a dog {i}", f"{i}.jpg"] for i in range(6)]
    quoted = [[f'a "dog" {i}', f"{i}.jpg"] for i in range(6)]
    read = 0
    for rows in (plain, quoted):
        text = rows_of_pandas(rows)
        quotes = [i for i, character in enumerate(text) if character == '"']
        for at in range(len(text) + 1):
            changed = [text[:at] + '"' + text[at:]]
            changed += [text[:at] + text[at + 1 :]] if at in quotes else []
            for content in changed:
                if rng.random() < 0.5:
                    content = content.removesuffix("\n")
                try:
                    found = table(tmp_path, HEADING + content)
                except UserError as error:
                    assert "t.tsv line " in str(error) and "\n" not in str(error)
                    continue
                read += 1
                assert [row["path"].replace('"', "") for row in found] == [path for _, path in rows]
                assert all(len(row["title"]) < 20 for row in found)
    assert read > 50, "a quote inside a field is text"


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a\n", "line 2: 1 fields, but the heading has 2"),
        ("a\tb\nc\td\te\n", "line 3: 3 fields, but the heading has 2"),
        ('a\tb\n"c\td\n', "line 3: a quote opens a field and is never closed"),
        ('a\tb\n"c" d\te\n', "line 3: text follows the quote that closes a field"),
        ('"a\nb\tc\n', "line 2: a quote opens a field and is never closed"),
        ('"a\tb\nc"\td\n', "line 2: a quote opens a field and is never closed"),
        ("a\rb\tc\n", "line 2: new-line character"),
        ("\n\n", "has no rows"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(tmp_path, rows, message):
    assert message in refused(table, tmp_path, HEADING + rows)


def test_headings_are_checked(tmp_path):
    assert "no column path, title (tab-separated)" in refused(table, tmp_path, "title,path\na,b\n")
    assert "two columns 'title'" in refused(table, tmp_path, "title\ttitle\tpath\na\tb\tc\n")
    assert table(tmp_path, "path,title,more\na,b,c", ",") == [
        {"path": "a", "title": "b", "more": "c"}
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' is there twice"),
        ('["\\ud83d"]', "'\\ud83d' is half a character"),
        ("", "is not valid JSON"),
    ],
)
def test_bad_json_is_refused(text, message):
    assert message in refused(files.parse_json, text, "x.json")


def test_json_as_it_should_be():
    assert files.parse_json('["\\ud83d\\ude00", "\\\\ud83d"]', "x") == ["\U0001f600", "\\ud83d"]


def test_lines_of_json_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "\u2028"}\n\n{"a": \n')
    rows = files.read_jsonl(path)
    assert next(rows) == (f"{path} line 1", {"a": "\u2028"})
    assert f"{path} line 3 is not valid JSON" in refused(next, rows)


def test_objects_are_objects(tmp_path):
    files.write_json(tmp_path / "x.json", [1])
    assert "should hold a JSON object, not [1]" in refused(files.read_object, tmp_path / "x.json")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_json_is_written_with_numbers_that_are_none(tmp_path, number):
    content = {"a": [1.5, {"b": number}]}
    message = refused(files.write_json, tmp_path / "x.json", content)
    assert f"x.json: a.1.b is {number}, for which json has no word" in message
    assert not list(tmp_path.iterdir())
    assert files.finite_or_none({"a": number, "b": 1.0}) == {"a": None, "b": 1.0}


def test_files_are_written_whole(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": "caf\xe9"}, ensure_ascii=False)
    assert json.loads((tmp_path / "x.json").read_bytes().decode()) == {"a": "caf\xe9"}
    with pytest.raises(FileError, match="cannot write .*no/x.json: No such file"):
        files.write_text(tmp_path / "no" / "x.json", "")
