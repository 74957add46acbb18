"""The doors for text: json and tables that come in, json that goes out.

What comes in is UTF-8, with a byte order mark or without, and is read as what it says or refused
with its name and line. What goes out is whole, UTF-8, and json that every reader takes.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from errors import UserError
from paths import named, read_bytes, whole

_MOST_LINES = 100  # of a quoted field: beyond, its quote is a stray one


def read_text(path) -> str:
    """The text of a file, its ends of lines as they are.

    Raises:
      MissingFileError: it is not there.
      FileError: it cannot be read.
      UserError: it is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None


def lines(text: str) -> list[str]:
    """The lines of a text, ended by \\n or \\r\\n alone; a caption may hold Unicode's others."""
    whole = text.removesuffix("\n").split("\n") if text else []
    return [line.removesuffix("\r") for line in whole]


def parse_json(text: str, where) -> Any:
    """What a json text says.

    Args:
      where: file, or file and line, for the message.

    Raises:
      UserError: it is no json, has a key twice or text that is no Unicode.
    """

    def unique(pairs):
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{where}: the key {twice!r} is there twice; keep one of them")
        return content

    try:
        content = json.loads(text, object_pairs_hook=unique)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # half a pair, which nothing can encode
            json.dumps(content, ensure_ascii=False).encode()
    except UserError:
        raise
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {error.object[error.start]!a} is half a character") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None
    return content


def read_json(path) -> Any:
    """The content of a json file; raises as read_text() and parse_json() do."""
    return parse_json(read_text(path), path)


def read_object(path) -> dict[str, Any]:
    """The object in a json file; raises as read_json() does.

    Raises:
      UserError: the file holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} should hold a JSON object, not {content!r:.40}")
    return content


def read_jsonl(path) -> Iterator[tuple[str, Any]]:
    """(file and line for messages, content) of each line of json that is not blank."""
    for number, line in enumerate(lines(read_text(path)), 1):
        if line.strip():
            where = f"{path} line {number}"
            yield where, parse_json(line, where)


def read_records(path, fields: Collection[str]) -> Iterator[tuple[str, dict]]:
    """(file and row for messages, record) of a json list, or of json lines (*.jsonl).

    Raises:
      UserError: a row that is no object or lacks one of the fields; and as read_json().
    """
    if str(path).endswith(".jsonl"):
        rows = read_jsonl(path)
    else:
        content = read_json(path)
        if not isinstance(content, list):
            raise UserError(f"{path} holds no list")
        rows = ((f"{path} row {i}", row) for i, row in enumerate(content))
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where} is no object with {', '.join(fields)}")
        if missing := [name for name in fields if name not in row]:
            raise UserError(f"{where} has no {', '.join(missing)}")
        yield where, row


def dump_json(content: Any, where, **options) -> str:
    """Content as json.

    Args:
      where: what it is for, for the message.
      options: of json.dumps.

    Raises:
      UserError: a number is not finite, for which json has no word; names its key.
    """
    try:
        return json.dumps(content, allow_nan=False, **options)
    except ValueError:
        for key, value in _leaves(content):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(
                    f"{where}: {key or 'the value'} is {value}, for which json has no word; give a "
                    "finite number"
                ) from None
        raise


def finite_or_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as json has them: numbers as Python's, None for those that are not finite."""
    numbers = {
        name: value if isinstance(value, str | int | None) else float(value)
        for name, value in values.items()
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }


def _leaves(content, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = ()
    if isinstance(content, Mapping):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        yield prefix, content
    for key, value in items:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def write_text(path, text: str) -> None:
    """Writes a file so that a reader, a kill, or a machine that is lost, never sees half of it.

    Raises:
      FileError: it cannot be written; says where.
    """
    with named(path, "write"), whole(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def write_json(path, content: Any, **options) -> None:
    """Writes json, by default indented; raises as dump_json() and write_text() do.

    Args:
      options: of json.dumps.
    """
    write_text(path, dump_json(content, path, **({"indent": 2} | options)) + "\n")


def write_table(path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a csv file with a heading; raises as write_text() does."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([columns, *rows])
    write_text(path, stream.getvalue())


def write_jsonl(path, rows: Iterable) -> None:
    """Writes json, a line each; raises as dump_json() and write_text() do."""
    write_text(path, "".join(dump_json(row, path, ensure_ascii=False) + "\n" for row in rows))


def read_table(
    path, columns: Collection[str], delimiter: str = ","
) -> list[tuple[str, dict[str, str]]]:
    """The rows of a table with a heading, each checked to be one row.

    A field in quotes is as csv and pandas write it, quotes inside it doubled; a quote inside any
    other field is text. A row is a line, but a field in quotes may hold ends of lines. A quote that
    opens a field and is never closed, or is followed by more text, is refused with its line: the
    rows after it would be taken for its text.

    Args:
      columns: that there must be; others may be there, too.

    Returns:
      (file and line for messages, {column: field}) of each row.

    Raises:
      UserError: no table with these columns, or a row that is not of it; and as read_text().
    """
    rows = _rows(path, lines(read_text(path)), delimiter)
    _, heading = next(rows, (0, []))
    if missing := set(columns) - set(heading):
        separated = {"\t": "tab", ",": "comma"}.get(delimiter, repr(delimiter))
        raise UserError(
            f"{path} has no column {', '.join(sorted(missing))} ({separated}-separated)"
        )
    if len(set(heading)) < len(heading):
        twice = next(name for name in heading if heading.count(name) > 1)
        raise UserError(f"{path} has two columns {twice!r}; keep one of them")
    table = []
    for number, fields in rows:
        if len(fields) != len(heading):
            raise UserError(
                f"{path} line {number}: {len(fields)} fields, but the heading has {len(heading)} "
                f"({', '.join(heading)})"
            )
        table.append((f"{path} line {number}", dict(zip(heading, fields, strict=True))))
    if not table:
        raise UserError(f"{path} has no rows")
    return table


def _rows(path, physical: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of each row that is not blank."""
    width = None
    at = 0
    while at < len(physical):
        if not physical[at]:
            at += 1
            continue
        fields, end = _row(path, physical, at, delimiter, width)
        width = width or len(fields)
        yield at + 1, fields
        at = end


def _row(path, physical, start, delimiter, width) -> tuple[list[str], int]:
    """The fields of the row that starts there, and where the next one starts."""
    # A line that has all its fields is a row of its own: an open quote in it is a stray one.
    whole = width is None or physical[start].count(delimiter) >= width - 1
    last = start + 1 if whole else min(start + _MOST_LINES, len(physical))
    for end in range(start + 1, last + 1):
        try:
            (fields,) = csv.reader(
                ["\n".join(physical[start:end])], delimiter=delimiter, strict=True
            )
        except csv.Error as error:
            if "unexpected end" in str(error) and end < last:
                continue
            reason = str(error)
            if "unexpected end" in reason:
                reason = "a quote opens a field and is never closed"
            elif "expected after" in reason:
                reason = "text follows the quote that closes a field"
            raise UserError(
                f"{path} line {start + 1}: {reason}; put the field in quotes and double those "
                'inside it ("say ""stop""")'
            ) from None
        if any("\n" in field and delimiter in field for field in fields):
            raise UserError(
                f"{path} line {start + 1}: a quoted field runs over the ends of fields and lines; "
                "double the quotes inside it"
            )
        return fields, end
    raise AssertionError("a row ends with its file")
