"""Options of a command that are arguments of a function: --source.root=DIR is source(root=DIR)."""

import argparse
import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from errors import UserError


def parse(
    parser: argparse.ArgumentParser, groups: Sequence[str], arguments: Sequence[str] | None = None
) -> tuple[argparse.Namespace, dict[str, dict]]:
    """The parser's own options, and those of each group, with their values read as Python's.

    An option that is neither ends the program with the parser's usage.
    """
    options, rest = parser.parse_known_args(arguments)
    of_groups = {group: {} for group in groups}
    for argument in rest:
        name, equals, value = argument.removeprefix("--").partition("=")
        group, _, key = name.partition(".")
        if not argument.startswith("--") or not equals or not key or group not in of_groups:
            known = ", ".join(f"--{group}.<name>=<value>" for group in groups)
            parser.error(f"unknown option {argument}; beside those above there are {known}")
        of_groups[group][key] = _value(value)
    return options, of_groups


def call(name: str, function: Callable, options: Mapping[str, Any], *args) -> Any:
    """Calls a function with options of its own.

    Raises:
      UserError: an option that it does not have, or needs and is not given; says for what.
    """
    known = list(inspect.signature(function).parameters.values())[len(args) :]
    if unknown := [option for option in options if option not in {p.name for p in known}]:
        there_are = ", ".join(p.name for p in known)
        raise UserError(f"{name} has no option {unknown[0]!r}; there are: {there_are}")
    if missing := [p.name for p in known if p.default is p.empty and p.name not in options]:
        raise UserError(f"{name} needs the options {', '.join(missing)}")
    return function(*args, **options)


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
