"""Sources of image-caption records: checked whole when they are built, then read by index.

A source has `len` and `[i]`; a record is
  image: path of the image file (sources elsewhere may give encoded bytes or uint8 [H, W, 3]),
  captions: list[str], one of which is drawn every epoch,
  negatives: list[str] for the record, or list[list[str]] with one list a caption; may be absent;
    None where it is to have none, wherever others are from (data/mixture.py),
  texts: dict[str, list[list]], further texts by role, a list for each caption; may be absent
    (data/roles.py),
  key: where the record comes from (file and row), for error messages.
Work is saved by a source that offers `captions(i)`, a record's captions alone; `without_image(i)`,
a record but for its image; and `num_negatives`, which every one of its records has.

A fork adds a data set as data/<name>.py with `load(root, **options)` returning such a source. Other
records than these need an attribute `pipeline` of the source: the name of a file data/<pipeline>.py
that makes batches of them, as data/video.py does.
"""

import ast
import hashlib
import importlib
import os
import typing
import warnings
from pathlib import Path

from errors import MissingFileError, UserError
from files import read_json, read_table
from options import Options, check_known, modules_that_define
from paths import as_path, missing_files

_SHOWN = 3  # names that an error message lists before "..."


def load(name, root, *, split="all", test_size=100, train_size=None, **options):
    """Returns the source called `name`, or its training or test part.

    The split is by image, stable and exact: of the images ordered by the SHA-256 of their file
    name, the first `test_size` are the test part and the next `train_size` (default: all others)
    the training part. Records that share an image stay together.

    Args:
      name: captions, coco, degla, negclip (the functions below) or a module data/<name>.py.
      root: folder that relative paths in `options` start from.
      split: 'train', 'test' or 'all'.
      options: for the source itself, such as annotations= and images=.

    Raises:
      UserError: an unknown name or option, or annotations that are not what they should be.
      MissingFileError: annotations or images that are not there.
    """
    make, takes = find(name)
    source = make(root, **takes.arguments(options))
    if split != "all" and hasattr(source, "pipeline"):
        raise UserError(f"data source {name!r} has no split {split!r}: name another file of it")
    if split not in ("train", "test", "all"):
        raise UserError(f"data split {split!r} is unknown: use train, test or all")
    if split == "all":
        return source
    return Subset(source, *_split(source, split, test_size, train_size))


def all_captions(source) -> list[str]:
    """Every caption of a source; of videos, every text of their classes."""
    if hasattr(source, "classes"):
        texts_of = pipeline_of(source).class_texts
        return [text for template in source.templates for text in texts_of(source, template)]
    return [caption for i in range(len(source)) for caption in captions_of(source, i)]


def captions_of(source, i: int) -> list[str]:
    """The captions of record i, read as cheaply as the source can."""
    if hasattr(source, "captions"):
        return source.captions(i)
    return without_image(source, i)["captions"]


def without_image(source, i: int) -> dict:
    """What record i holds beside its image, which is not read where the source can do without.

    The path of an image stays.
    """
    record = getattr(source, "without_image", source.__getitem__)(i)
    return {k: value for k, value in record.items() if k != "image" or isinstance(value, str)}


def pipeline_of(source):
    """The module whose train_batches() and batch_fields() are for the source's records."""
    return importlib.import_module(f"data.{getattr(source, 'pipeline', 'pipeline')}")


def pipeline_named(name: str) -> str:
    """The pipeline of a source that is not opened: what its load() says that it returns."""
    load, _ = find(name)
    module = importlib.import_module(load.__module__)
    if hasattr(module, "train_batches"):
        return load.__module__.removeprefix("data.")
    pipeline = getattr(typing.get_type_hints(load).get("return"), "pipeline", None)
    return pipeline if isinstance(pipeline, str) else "pipeline"


class Records:
    """Records in memory whose image files have been seen to exist."""

    def __init__(self, records):
        _check_images([record["image"] for record in records])
        self._records = records

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]


class Subset:
    """The records of `source` at `indices`, in that order; offers what the source does.

    Args:
      read: records without their images that have been read already, by index into `source`.
    """

    def __init__(self, source, indices, read=None):
        self._source, self._indices, self._read = source, indices, read or {}

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        return self._source[self._indices[index]]

    def without_image(self, index):
        i = self._indices[index]
        return self._read[i] if i in self._read else without_image(self._source, i)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        whole = getattr(self._source, name)
        if name == "captions":
            return lambda index: whole(self._indices[index])
        if callable(whole):  # which may count in the source's own indices
            raise AttributeError(f"a part of a {type(self._source).__name__} has no {name}()")
        return whole

    def __getstate__(self):
        # The workers that this is sent to read the records themselves.
        return self.__dict__ | {"_read": {}}


def captions(root, annotations="captions.json", images="images"):
    """`[{image, captions: [..]}]`, optionally with negatives: one list a row or one a caption.

    Also optionally with texts: {role: [..]}, one list a caption, of texts or of groups of texts.
    Karpathy's files, which call them `caption` or `image_name`, are read as well.
    """
    file, folder = as_path(root, annotations), as_path(root, images)
    records = []
    for key, row in _rows(file, "[{image, captions: [..]}]"):
        field = "caption" if "caption" in row else "captions"
        name = "image_name" if "image_name" in row and "image" not in row else "image"
        record = {
            "image": str(folder / _text(row, name, key)),
            "captions": _texts(row, field, key),
            "key": key,
        }
        if not record["captions"]:
            raise UserError(f"{key}: '{field}' is an empty list")
        if "negatives" in row:
            record["negatives"] = _negatives(row, len(record["captions"]), key)
        if "texts" in row:
            record["texts"] = _further_texts(row, len(record["captions"]), key)
        records.append(record)
    return Records(records)


def coco(root, annotations="annotations/captions_train2014.json", images="train2014"):
    """COCO's captions json: annotations joined to images, those without a caption left out."""
    file, folder = as_path(root, annotations), as_path(root, images)
    content = read_json(file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        expected = "{images: [..], annotations: [..]}"
        raise UserError(f"{file} should hold {expected}: {_shape(content)}")
    records = {}
    for key, row in _rows(file, "images: [{id, file_name}]", content["images"], "images"):
        image = str(folder / _text(row, "file_name", key))
        image_id = _id(row, "id", key)
        if records.get(image_id, {"image": image})["image"] != image:
            raise UserError(f"{key}: id {image_id!r} is that of {records[image_id]['key']}, too")
        records.setdefault(image_id, {"image": image, "captions": [], "key": key})
    for key, row in _rows(
        file, "annotations: [{image_id, caption}]", content["annotations"], "annotations"
    ):
        image_id = _id(row, "image_id", key)
        if image_id not in records:
            raise UserError(f"{key}: image_id {image_id!r} is not among the file's images")
        records[image_id]["captions"].append(_text(row, "caption", key))
    return Records([record for record in records.values() if record["captions"]])


def degla(root, annotations="degla.json", images="train2014", pattern="COCO_train2014_%012d.jpg"):
    """DeGLA's json `[{image_id, original, enhanced: [..]}]`, with its negatives in `enhanced`.

    Args:
      pattern: file name of an image, filled with its number; an `image_id` that is not a number
        is a file name itself.
    """
    file, folder = as_path(root, annotations), as_path(root, images)
    records = []
    for key, row in _rows(file, "[{image_id, original, enhanced: [..]}]"):
        image_id = str(_id(row, "image_id", key)).strip()
        if not image_id:
            raise UserError(f"{key}: 'image_id' is empty")
        name = _filled(pattern, image_id) if image_id.isdecimal() else image_id
        records.append(
            {
                "image": str(folder / name),
                "captions": [_text(row, "original", key)],
                "negatives": _texts(row, "enhanced", key),
                "key": key,
            }
        )
    return Records(records)


def negclip(root, annotations="train_neg_clip.tsv", images="."):
    """NegCLIP's tsv: columns title, filepath, and neg_caption holding a Python list of captions."""
    file, folder = as_path(root, annotations), as_path(root, images)
    records = []
    for key, row in read_table(file, {"title", "filepath", "neg_caption"}, "\t"):
        row["neg_caption"] = _python_literal(row["neg_caption"])
        records.append(
            {
                "image": str(folder / _text(row, "filepath", key)),
                "captions": [_text(row, "title", key)],
                "negatives": _texts(row, "neg_caption", key),
                "key": key,
            }
        )
    return Records(records)


def _filled(pattern, number):
    try:
        return pattern % int(number)
    except (TypeError, ValueError) as error:
        raise UserError(f"pattern {pattern!r} makes no file name of {number}: {error}") from None


def _python_literal(text):
    """The Python value that a text spells; of none the text itself, for a check to refuse."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes, such as \\d in a caption
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return text


_SOURCES = {make.__name__: make for make in (captions, coco, degla, negclip)}


def find(name):
    """The function that makes the source called `name` from a root, and the options it takes.

    Raises:
      UserError: no such source; says which there are and the nearest.
    """
    check_known("data source", name, sorted([*_SOURCES, *_forks()]))
    own = name in _SOURCES
    make = _SOURCES[name] if own else importlib.import_module(f"data.{name}").load
    return make, Options(make, f"data source {name}", handed=1, section="config.data.options")


def _forks():
    here = Path(__file__)
    return [name for name in modules_that_define("load", here.parent) if name != here.stem]


def _split(source, split, test_size, train_size):
    """Indices of a part of a source, and what of it was read on the way, see Subset."""
    records = [without_image(source, i) for i in range(len(source))]
    names = list(map(image_name, records))
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    needed = test_size + (1 if train_size is None else train_size)
    if test_size < 0 or needed > len(order):
        raise UserError(
            f"{len(order)} images cannot be split into {test_size} for testing and "
            f"{'the rest' if train_size is None else train_size} for training"
        )
    stop = None if train_size is None else test_size + train_size
    chosen = set(order[:test_size] if split == "test" else order[test_size:stop])
    indices = [i for i, name in enumerate(names) if name in chosen]
    return indices, {i: records[i] for i in indices if "image" not in records[i]}


def image_name(record) -> str:
    """The name of a record's image file; where the record comes from if it has none."""
    image = record.get("image")
    return os.path.basename(image) if isinstance(image, str) else record["key"]


def _check_images(paths):
    wanted = dict.fromkeys(paths)
    absent = missing_files(wanted)
    if missing := [os.path.split(path) for path in wanted if path in absent]:
        folders = list(dict.fromkeys(folder for folder, _ in missing))
        raise MissingFileError(
            f"{len(missing)} of {len(wanted)} images are missing; looked in {_first(folders)} "
            f"for {_first([name for _, name in missing])}"
        )


def _first(items):
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _rows(file, expected, rows=None, name=""):
    """Yields (key, row) of a non-empty list of objects, by default the whole content of `file`."""
    rows = read_json(file) if rows is None else rows
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file} should hold {expected}: {_shape(rows)}")
    for i, row in enumerate(rows):
        key = f"{file}{'.' if name else ''}{name}[{i}]"
        if not isinstance(row, dict):
            raise UserError(f"{key} should be an object, as in {expected}: {_shape(row)}")
        yield key, row


def _shape(content):
    if isinstance(content, dict):
        return f"it is an object with the keys {_first([str(key) for key in content]) or '(none)'}"
    if isinstance(content, list):
        return f"it is a list of {len(content)}"
    return f"it is {content!r:.60}"


def _field(row, name, key):
    if name not in row:
        raise UserError(f"{key} has no {name!r}; it has {_first([str(k) for k in row])}")
    return row[name]


def _id(row, name, key):
    value = _field(row, name, key)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise UserError(f"{key}: {name!r} should be a number or a text: {_shape(value)}")
    return value


def _text(row, name, key):
    return _check_text(_field(row, name, key), f"{key}: {name!r}")


def _texts(row, name, key):
    return _check_texts(_field(row, name, key), f"{key}: {name!r}")


def _negatives(row, num_captions, key):
    """One list for the row, or a list of lists, as many as there are captions."""
    where, values = f"{key}: 'negatives'", row["negatives"]
    if not (isinstance(values, list) and values and isinstance(values[0], list)):
        return _check_texts(values, where)
    if len(values) != num_captions:
        raise UserError(f"{where} has {len(values)} lists for {num_captions} captions")
    return [_check_texts(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _further_texts(row, num_captions, key):
    """By role, one list for each caption; its entries are texts or lists of texts."""
    where, by_role = f"{key}: 'texts'", row["texts"]
    if not isinstance(by_role, dict):
        raise UserError(f"{where} should be an object, {{role: [..]}}: {_shape(by_role)}")
    for role, lists in by_role.items():
        if not isinstance(lists, list) or len(lists) != num_captions:
            raise UserError(
                f"{where}[{role!r}] should be a list for each of the {num_captions} captions:"
                f" {_shape(lists)}"
            )
        for i, entries in enumerate(lists):
            if not isinstance(entries, list):
                raise UserError(f"{where}[{role!r}][{i}] should be a list: {_shape(entries)}")
            for k, entry in enumerate(entries):
                check = _check_texts if isinstance(entry, list) else _check_text
                check(entry, f"{where}[{role!r}][{i}][{k}]")
    return by_role


def _check_texts(values, where):
    if not isinstance(values, list):
        raise UserError(f"{where} should be a list of texts: {_shape(values)}")
    return [_check_text(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _check_text(value, where):
    if not isinstance(value, str):
        raise UserError(f"{where} should be a text: {_shape(value)}")
    if not value.strip():
        raise UserError(f"{where} is empty")
    return value
