"""The types of captions to write, a file each: TYPE in captions/types/<name>.py.

A file more is a type more; an unknown name lists what there is.
"""

import dataclasses
import functools
import hashlib
import importlib
import pkgutil
from collections.abc import Callable

from captions.checks import Pair, name_of
from captions.rules import Candidates
from errors import UserError

DEGLA = ("reshuffle", "swap_nouns", "swap_adjectives", "replace_adjective", "replace_noun")


@dataclasses.dataclass(frozen=True)
class Type:
    """What a writer is asked for, and what its drafts must pass.

    Attributes:
      instruction: the first line of the prompt; states what the examples show.
      examples: pairs of a text and what is to be written for it. Completion with examples, not an
        order in a chat: a small model that is told to replace a word copies the caption.
      checks: see captions/checks.py; the first that rejects is counted.
      rule: writes candidates without a language model, see captions/rules.py; None: there is none.
      labels: what stands in front of the two texts of an example.
      of: what it is written for, 'caption' or 'class'.
      fluent: whether drafts are to read as well as the caption, where the writer can tell.
    """

    instruction: str
    examples: tuple[tuple[str, str], ...]
    checks: tuple[Callable[[Pair], bool], ...]
    rule: Callable[..., Candidates] | None = None
    labels: tuple[str, str] = ("Caption", "Changed")
    of: str = "caption"
    fluent: bool = True

    def prompt(self, text: str, shots: int | None = None) -> str:
        """The prompt for a text, whose line breaks cannot pass for the end of an example.

        Args:
          shots: how many of the examples are shown; None: all.
        """
        source_label, target_label = self.labels
        shown = [f"{source_label}: {a}\n{target_label}: {b}" for a, b in self.examples[:shots]]
        request = f"{source_label}: {' '.join(text.split())}\n{target_label}:"
        return "\n\n".join([self.instruction, *shown, request])

    def version(self, shots: int | None = None) -> str:
        """Changes with every letter of the prompt."""
        return hashlib.sha256(self.prompt("", shots).encode()).hexdigest()[:8]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the checks."""
        return tuple(map(name_of, self.checks))


def available() -> list[str]:
    """Names of all types."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@functools.cache
def load(name: str) -> Type:
    """The type that captions/types/<name>.py holds.

    Raises:
      UserError: there is none.
    """
    if name not in available():
        raise UserError(f"unknown type of captions {name!r}: there are {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}").TYPE
