"""Strategies for a language model that writes hard negatives; the captions' checks are the judge.

A situation is a type of negative and the reason why a draft of it was rejected. A strategy is a
line in the writer's prompt, and is kept if the writer's next draft passes.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from captions import types
from captions.checks import Pair, rejection
from language.base import LanguageModel
from teaching.library import Library
from teaching.strategies import Loop, Scenario, parse_strategies, retrieve

FLOOR = 0.9  # a situation is found by its own words only


class Wanted(NamedTuple):
    """A negative of a type is wanted for a caption; `others` are further ones of its image."""

    type: str
    caption: str
    others: tuple[str, ...] = ()


def situation(kind: str, reason: str) -> str:
    """What a library is asked by; a reason is the name of a check."""
    return f"{kind.replace('_', ' ')}, rejected: {reason.replace('_', ' ')}"


@dataclasses.dataclass(frozen=True)
class Writer:
    """A language model with strategies in its prompt."""

    model: LanguageModel

    def write(self, wanted: Wanted, strategies: Sequence[str]) -> str:
        """A draft, greedy."""
        prompt = types.load(wanted.type).prompt(wanted.caption)
        if strategies:
            instruction, rest = prompt.split("\n", 1)
            prompt = "\n".join([instruction, *(f"- {each}" for each in strategies), rest])
        return self.model.generate([prompt], max_tokens=60, stop=("\n",))[0][0].text.strip()

    def reason(self, wanted: Wanted, draft: str) -> str | None:
        """Why the checks reject a draft, or None."""
        pair = Pair(wanted.caption, draft, wanted.others)
        return rejection(pair, types.load(wanted.type).checks)

    def advised(self, wanted: Wanted, library: Library) -> str:
        """A draft, and where it is rejected another with the strategies for that situation."""
        draft = self.write(wanted, ())
        reason = self.reason(wanted, draft)
        strategies = reason and retrieve(library, situation(wanted.type, reason), floor=FLOOR)
        return self.write(wanted, strategies) if strategies else draft


def acceptance(writer: Writer, wanted: Sequence[Wanted], library: Library) -> dict[str, float]:
    """The share of drafts that pass, by type."""
    passed = defaultdict(list)
    for each in wanted:
        passed[each.type].append(writer.reason(each, writer.advised(each, library)) is None)
    return {kind: sum(each) / len(each) for kind, each in passed.items()}


def reasons(writer: Writer, wanted: Sequence[Wanted], library: Library) -> Counter:
    """How often each (type, reason) rejects."""
    reasons = Counter((w.type, writer.reason(w, writer.advised(w, library))) for w in wanted)
    return Counter({key: count for key, count in reasons.items() if key[1]})


def loop(
    writer: Writer, teacher: LanguageModel, wanted: Sequence[Wanted], library: Library
) -> Loop:
    """The rounds that fill a library for this writer; measure acceptance on other captions.

    Args:
      teacher: is shown a rejected draft with the reason, and says what to do.
    """
    by_key = {str(i): each for i, each in enumerate(wanted)}

    def scenarios(number: int, answer) -> Iterator[Scenario]:
        for key, each in by_key.items():
            draft = writer.advised(each, library)
            reason = writer.reason(each, draft)
            if reason:
                text = situation(each.type, reason)
                yield Scenario(text, text, key, source=each.caption)

    def student(scenario: Scenario, strategies: Sequence[str]) -> str:
        return writer.write(by_key[scenario.prompt], strategies)

    def advise(scenario, old, _, failed) -> list[str]:
        tried = "".join(f"This did not help: {'; '.join(each)}\n" for each in failed if each)
        prompt = (
            f"{types.load(by_key[scenario.prompt].type).instruction}\nCaption: {scenario.source}\n"
            f"Draft: {old}\nIt was rejected ({scenario.text}).\n{tried}Say in numbered lines what "
            "to do, for any caption.\n1."
        )
        sampling = {"temperature": 0.7, "seed": len(failed)} if failed else {}
        text = teacher.generate([prompt], max_tokens=120, **sampling)[0][0].text
        return parse_strategies(f"1.{text}")

    def better(scenario: Scenario, old: str, new: str) -> bool:
        each = by_key[scenario.prompt]
        return writer.reason(each, old) is not None and writer.reason(each, new) is None

    names = {"student": writer.model.name, "teacher": teacher.name}
    return Loop(
        scenarios, student, lambda scenario: "", advise, better, library, names, known=FLOOR
    )
