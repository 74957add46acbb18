"""Strategies for a language model that writes hard negatives; the captions' checks are the judge.

A situation is a type of negative and the reason why a draft of it was rejected. A strategy is a
line in the writer's prompt, and is kept if the writer's next draft passes.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from captions import types
from captions.checks import Pair, rejection
from data.sources import without_image
from language.base import LanguageModel
from options import Count, check_known
from teaching.base import rng_of
from teaching.library import Library
from teaching.results import Point
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

    def write(self, wanted: Sequence[Wanted], advice: Sequence[Sequence[str]]) -> list[str]:
        """Drafts, greedy, each with its strategies in the prompt."""
        prompts = []
        for each, strategies in zip(wanted, advice, strict=True):
            prompt = types.load(each.type).prompt(each.caption)
            if strategies:
                instruction, rest = prompt.split("\n", 1)
                prompt = "\n".join([instruction, *(f"- {s}" for s in strategies), rest])
            prompts.append(prompt)
        if not prompts:
            return []
        answers = self.model.generate(prompts, max_tokens=60, stop=("\n",))
        return [completions[0].text.strip() for completions in answers]

    def reason(self, wanted: Wanted, draft: str) -> str | None:
        """Why the checks reject a draft, or None."""
        pair = Pair(wanted.caption, draft, wanted.others)
        return rejection(pair, types.load(wanted.type).checks)

    def advised(self, wanted: Sequence[Wanted], library: Library) -> list[str]:
        """Drafts, and where one is rejected another with the strategies for that situation."""
        drafts = self.write(wanted, [()] * len(wanted))
        again = {}
        for i, (each, draft) in enumerate(zip(wanted, drafts, strict=True)):
            reason = self.reason(each, draft)
            again[i] = reason and retrieve(library, situation(each.type, reason), floor=FLOOR)
        again = {i: strategies for i, strategies in again.items() if strategies}
        second = self.write([wanted[i] for i in again], list(again.values()))
        return [dict(zip(again, second, strict=True)).get(i, d) for i, d in enumerate(drafts)]


def _judged(writer: Writer, wanted: Sequence[Wanted], library: Library) -> Iterator[tuple]:
    """(what is wanted, its draft, why that is rejected or None)."""
    for each, draft in zip(wanted, writer.advised(wanted, library), strict=True):
        yield each, draft, writer.reason(each, draft)


def acceptance(writer: Writer, wanted: Sequence[Wanted], library: Library) -> dict[str, float]:
    """The share of drafts that pass, by type."""
    passed = defaultdict(list)
    for each, _, reason in _judged(writer, wanted, library):
        passed[each.type].append(reason is None)
    return {kind: sum(each) / len(each) for kind, each in passed.items()}


def reasons(writer: Writer, wanted: Sequence[Wanted], library: Library) -> Counter:
    """How often each (type, reason) rejects."""
    judged = _judged(writer, wanted, library)
    return Counter((each.type, reason) for each, _, reason in judged if reason)


def loop(
    writer: Writer, teacher: LanguageModel, wanted: Sequence[Wanted], library: Library
) -> Loop:
    """The rounds that fill a library for this writer; measure acceptance on other captions.

    Args:
      teacher: is shown a rejected draft with the reason, and says what to do.
    """
    by_key = {str(i): each for i, each in enumerate(wanted)}

    def scenarios(number: int, answer) -> Iterator[Scenario]:
        for key, (each, _, reason) in zip(by_key, _judged(writer, wanted, library), strict=True):
            if reason:
                text = situation(each.type, reason)
                yield Scenario(text, text, key, source=each.caption)

    def student(scenario: Scenario, strategies: Sequence[str]) -> str:
        return writer.write([by_key[scenario.prompt]], [strategies])[0]

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


def _wanted(source, kinds: Sequence[str], count: int, rng: np.random.Generator) -> list[Wanted]:
    """A negative of each type for a caption of so many records."""
    picked = rng.permutation(len(source))[:count]
    captions = [without_image(source, int(i))["captions"] for i in picked]
    return [Wanted(kind, first, tuple(others)) for first, *others in captions for kind in kinds]


def experiment(
    lend,
    kinds: Sequence[str] = types.DEGLA,
    taught: Count = 10,
    tested: Count = 20,
    rounds: Count = 1,
) -> list[Point]:
    """Do more of a language model's hard negatives pass the checks, with advice for each situation?

    Args:
      lend: see teach.py; its student writes, its teacher advises, the captions are config.data's.
      kinds: the types of negatives.
      taught: captions whose rejected drafts are advised on.
      tested: others, for which acceptance is measured.
      rounds: of advice.

    Returns:
      Acceptance by type, without and with advice; how many situations have a strategy.
    """
    for kind in kinds:
        check_known("type of captions", kind, types.available())
    writer, teacher = Writer(lend.language("student")), lend.language("teacher")
    library, rng = Library(writer.model.embed), rng_of(lend.seed, 0, "captions")
    train = _wanted(lend.photographs("train"), kinds, taught, rng)
    test = _wanted(lend.photographs("test"), kinds, tested, rng)
    before = acceptance(writer, test, library)
    loop(writer, teacher, train, library).run(rounds)
    lend.cells.folder.mkdir(parents=True, exist_ok=True)
    library.save(lend.cells.folder / "library.jsonl")
    points = [Point("with", rounds, "situations with a strategy", len(library.entries))]
    for name, shares in (("without", before), ("with", acceptance(writer, test, library))):
        points += [Point(name, rounds, kind, share) for kind, share in shares.items()]
    return points
