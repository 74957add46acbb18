"""The options of a function are its own arguments: their names are checked, texts read by type.

config.method.options, config.data.options, config.eval.<benchmark> and config.model take whatever
the signature of make(), load(), run() or build() takes, from a file or the command line; so do the
options of a language model. No other list has to know them.
"""

import ast
import contextlib
import dataclasses
import difflib
import enum
import importlib
import inspect
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from errors import UserError

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NONE = ("None", "none", "null")
_UNIONS = (typing.Union, types.UnionType)
_ITEMS = (tuple, list, Sequence, Collection, Iterable)
_MAPPINGS = (dict, Mapping, MutableMapping)
_SCALARS = {
    bool: bool,
    int: numbers.Integral,
    float: numbers.Real,
    str: str | os.PathLike,
}


@dataclasses.dataclass(frozen=True)
class Within:
    """The numbers that an option takes: `turns: Annotated[int, Within(1)]`."""

    least: float
    most: float = math.inf

    def check(self, value: float) -> None:
        if not self.least <= value <= self.most:  # which nan is not, either
            most = "" if self.most == math.inf else f" and at most {self.most:g}"
            raise ValueError(f"{value} must be at least {self.least:g}{most}")


Count = Annotated[int, Within(1)]
Share = Annotated[float, Within(0, 1)]


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises a UserError for a name that is not known; it names the nearest and lists all."""
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f" (nearest: {nearest[0]})" if nearest else ""
        raise UserError(f"unknown {kind} {name!r}{hint}; there are: {', '.join(known) or 'none'}")


def modules_that_define(function: str, folder: Path) -> list[str]:
    """Names of the modules of a folder that define a function of that name; none is imported."""
    start = f"\ndef {function}("
    files = sorted(Path(folder).glob("*.py"))
    return [file.stem for file in files if start in "\n" + file.read_text(encoding="utf-8")]


def definition(
    function: str, package: str, name: str, kind: str, **how
) -> tuple[Callable, "Options"]:
    """A function of <package>/<name>.py, and the options that it takes.

    Args:
      kind: what the module is, for messages.
      how: see Options.

    Raises:
      UserError: no such module; says which there are and the nearest.
    """
    folder = Path(importlib.import_module(package).__file__).parent
    check_known(kind, name, modules_that_define(function, folder))
    defined = getattr(importlib.import_module(f"{package}.{name}"), function)
    return defined, Options(defined, f"{kind} {name}", **how)


def passed_on_to(target: Callable) -> Callable:
    """Decorates a function that hands its **options on: its signature shows those of the target."""

    def decorate(function):
        own = inspect.signature(function)
        parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters += [
            p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(target).parameters.values()
        ]
        function.__signature__ = own.replace(parameters=parameters)
        return function

    return decorate


class Options:
    """What a function takes beside what its caller hands it.

    Args:
      function: whose arguments the options are.
      owner: names it in messages, such as 'method degla'.
      handed: arguments that the caller gives: their names, or how many of the first.
      section: where users set them, such as config.method.options.
    """

    def __init__(
        self,
        function: Callable,
        owner: str,
        handed: Collection[str] | int = (),
        section: str = "",
    ):
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except NameError:
            parameters = inspect.signature(function).parameters
        if isinstance(handed, int):
            handed = list(parameters)[:handed]
        self.owner, self.section = owner, section
        self.any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._parameters = {
            name: p
            for name, p in parameters.items()
            if name not in handed and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }

    @property
    def names(self) -> list[str]:
        """Of the options, in the order of the signature."""
        return list(self._parameters)

    @property
    def defaults(self) -> dict[str, Any]:
        """Of those options that have one; the fields of a dataclass as a dict."""
        defaults = {n: p.default for n, p in self._parameters.items() if p.default is not p.empty}
        return {
            name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
            for name, value in defaults.items()
        }

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as the function takes them.

        Raises:
          UserError: an unknown name, a value of another type than declared, or none for an option
            without a default.
        """
        arguments = {}
        for name, value in options.items():
            hint = self._hint(name)
            # What is shown by a default alone is a hint for texts, and no promise.
            declared = self._parameters.get(name)
            if declared is None or declared.annotation is declared.empty:
                hint = tuple if declared and isinstance(declared.default, tuple) else Any
            try:
                arguments[name] = convert(value, hint)
            except ValueError as error:
                raise UserError(f"option {name!r} of {self.owner}: {error}") from None
        for name, parameter in self._parameters.items():
            if parameter.default is parameter.empty and name not in arguments:
                where = f": give {self.section}.{name}" if self.section else ""
                raise UserError(f"{self.owner} needs the option {name!r}{where}")
        return arguments

    def read(self, path: Sequence[str], text: str) -> Any:
        """The value that a text stands for, as json can hold it.

        Args:
          path: the option's name, and keys below it where it is a dict.

        Raises:
          UserError: an unknown name, or a text that is not of the declared type.
        """
        hint = self._hint(path[0])
        try:
            for key in path[1:]:
                hint = _inside(hint, key)
            value = convert(text, hint, is_text=True)
        except ValueError as error:
            raise UserError(f"option {'.'.join(path)!r} of {self.owner}: {error}") from None
        try:
            json.dumps(value)
        except TypeError:  # such as a dataclass, which arguments() makes
            return _literal(text)
        return value

    def _hint(self, name: str) -> Any:
        if self.any_name and name not in self._parameters:
            return Any
        check_known(f"option of {self.owner}", name, self.names)
        return _declared(self._parameters[name])


def convert(value: Any, hint: Any, is_text: bool = False) -> Any:
    """A value as the type that is declared.

    Args:
      is_text: it comes from a command line, which has nothing but texts.

    Raises:
      ValueError: it is of another type.
    """
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    kind = origin or hint
    if origin is Annotated:
        value = convert(value, inner[0], is_text)
        for bounds in filter(lambda each: isinstance(each, Within), inner[1:]):
            bounds.check(value)
        return value
    if origin in _UNIONS:
        return _first_that_takes(value, hint, is_text)
    if origin is typing.Literal:
        return _one_of({str(each): each for each in inner}, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum) and not isinstance(value, hint):
        return _one_of(hint.__members__, value)
    if dataclasses.is_dataclass(hint) and not isinstance(value, hint):
        return hint(**Options(hint, hint.__name__).arguments(_mapping(value, hint)))
    if kind in _ITEMS:
        return _items(value, kind, inner)
    if kind in _MAPPINGS:
        return _mapping(value, hint)
    if kind in _SCALARS:
        return _scalar(value, kind)
    return _literal(value) if is_text else value


def _scalar(value, kind):
    if isinstance(value, str) and kind is not str:
        try:
            value = _WORDS[value.strip().lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            _refuse(value, kind)
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind is not bool):
        _refuse(value, kind)
    return value


def _literal(value):
    """The Python value that a text writes, else the text itself."""
    if not isinstance(value, str):
        return value
    word = value.strip()
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(word, word))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _first_that_takes(value, hint, is_text):
    hints = set(typing.get_args(hint))
    if type(None) in hints and (value is None or (is_text and value in _NONE)):
        return None
    # Of a command line any text would do for a str, in a file "3" is no number.
    in_order = sorted(hints - {type(None)}, key=lambda each: ((each is str) == is_text, str(each)))
    for each in in_order:
        with contextlib.suppress(ValueError):
            return convert(value, each, is_text)
    _refuse(value, hint)


def _one_of(members, value):
    if str(value) not in members:
        raise ValueError(f"{value!r} is none of {', '.join(members)}")
    return members[str(value)]


def _items(value, kind, inner):
    if isinstance(value, str):
        literal = _literal(value)
        texts = value.strip().strip("()[]").split(",")
        is_list = isinstance(literal, tuple | list)
        value = literal if is_list else [text.strip() for text in texts if text.strip()]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        _refuse(value, kind)
    value = list(value)
    if kind is tuple and inner and Ellipsis not in inner:
        if len(value) != len(inner):
            raise ValueError(f"{value!r} should have {len(inner)} items")
        return tuple(map(convert, value, inner))
    items = (convert(each, inner[0] if inner else Any) for each in value)
    return list(items) if kind is list else tuple(items)


def _mapping(value, hint):
    value = _literal(value)
    return value if isinstance(value, Mapping) else _refuse(value, hint)


def _inside(hint, key):
    """What is declared for a key of a dict, or a field of a dataclass."""
    inner = [each for each in typing.get_args(hint) if each is not type(None)]
    if typing.get_origin(hint) in _UNIONS:
        return _inside(inner[0] if len(inner) == 1 else Any, key)
    if dataclasses.is_dataclass(hint):
        return Options(hint, hint.__name__)._hint(key)
    if hint is Any or (typing.get_origin(hint) or hint) in _MAPPINGS:
        return inner[1] if len(inner) == 2 else Any
    raise ValueError(f"it has no key {key!r}")


def _declared(parameter: inspect.Parameter) -> Any:
    """The type of a parameter by its annotation, else by its default."""
    hint, default = parameter.annotation, parameter.default
    if hint is parameter.empty:
        hint = _shown_by(default)
    if isinstance(hint, str):  # of a name that only type checkers import
        return Any
    return hint | None if default is None and hint is not Any else hint


def _shown_by(default) -> Any:
    if isinstance(default, bool | str):
        return type(default)
    if isinstance(default, int | float):
        return int | float
    if isinstance(default, tuple) and default:
        return tuple[_shown_by(default[0]), ...]
    return type(default) if dataclasses.is_dataclass(default) else Any


def _refuse(value, hint) -> NoReturn:
    origin = typing.get_origin(hint) or hint
    name = str(hint) if origin in _UNIONS else getattr(origin, "__name__", str(hint))
    raise ValueError(f"{value!r} is no {name}")
