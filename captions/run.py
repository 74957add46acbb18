"""A run of captions.generate as data, what it opens, and how options of several owners are read."""

import argparse
import ast
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import language.base
from captions import types, writing
from captions.rules import Vocabulary
from captions.teacher import ImageMargin
from captions.writers import Language, Rules, Writer
from captions.writing import Limits
from data import sources
from errors import UserError
from options import Options


@dataclasses.dataclass(frozen=True)
class Run:
    """What is to be written, by whom and how; kept beside it as run.json.

    Attributes:
      source: arguments of data/sources.py's load().
      writer: 'rules' or 'language'; writer_options are arguments of captions/writers.py's.
      model: arguments of language/base.py's load().
      types: of captions/types/; none: DeGLA's five, or describe_class for a source of classes.
      limits: arguments of captions/writing.py's Limits.
      teacher: weights of a CLIP that drafts are held against the image by, '' for none.
      records: write for the first so many; None: for all.
      task_records: records of a task.
    """

    source: Mapping
    writer: str
    writer_options: Mapping = dataclasses.field(default_factory=dict)
    model: Mapping | None = None
    types: Sequence[str] = ()
    limits: Mapping = dataclasses.field(default_factory=dict)
    teacher: str = ""
    records: int | None = None
    task_records: int = 2000

    def complete(self) -> "Run":
        """The run with its types, after a look at what can be wrong with it."""
        source = sources.load(**self.source)
        of = "class" if hasattr(source, "classes") else "caption"
        names = tuple(self.types) or (types.DEGLA if of == "caption" else ("describe_class",))
        for name in names:
            kind = types.load(name)
            if kind.of != of:
                raise UserError(f"type {name} is written for a {kind.of}, the source has a {of}")
            if self.writer == "rules" and kind.rule is None:
                raise UserError(f"type {name} has no rule: give --writer=language")
        return dataclasses.replace(self, types=names)

    def open_items(self) -> Sequence[list[writing.Item]]:
        return writing.items(sources.load(**self.source), self.records, bool(self.teacher))

    def open_writer(self, cache: Path) -> Writer:
        """The writer; a language model keeps its answers in the folder `cache`."""
        if self.writer == "rules":
            captions = sources.all_captions(sources.load(**self.source))
            vocabulary = Vocabulary.from_captions(captions)
            return call(Rules, "writer rules", self.writer_options, vocabulary)
        if self.writer != "language":
            raise UserError(f"unknown writer {self.writer!r}: give rules or language")
        if not self.model:
            backends = ", ".join(language.base.available())
            raise UserError(f"a language writer needs --model, one of {backends}")
        open_model = functools.partial(language.base.load, **self.model)
        return call(Language, "writer language", self.writer_options, open_model, cache)

    def open_limits(self) -> Limits:
        margin = ImageMargin(self.teacher) if self.teacher else None
        return call(Limits, "limits", {**self.limits, "image_margin": margin})

    def to_json(self) -> dict:
        return json.loads(json.dumps(dataclasses.asdict(self)))


def call(function: Callable, owner: str, options: Mapping, *args):
    """Calls a function with options of its own, which are checked; see options.py."""
    return function(*args, **Options(function, owner, len(args)).arguments(options))


def parse_options(parser: argparse.ArgumentParser, groups: Sequence[str]):
    """The parser's own options, and those of each group: --source.root=DIR."""
    options, rest = parser.parse_known_args()
    of_groups = {group: {} for group in groups}
    for argument in rest:
        name, equals, value = argument.removeprefix("--").partition("=")
        group, _, key = name.partition(".")
        if not argument.startswith("--") or not equals or not key or group not in of_groups:
            known = ", ".join(f"--{group}.<name>=<value>" for group in groups)
            parser.error(f"unknown option {argument}; beside those of --help there are {known}")
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        of_groups[group][key] = value
    return options, of_groups
