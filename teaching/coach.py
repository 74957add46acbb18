"""A language model as a coach of teachers (arXiv 2306.03090): ratings, highlights and suggestions.

Three tasks on a classroom transcript: rate an item of an observation instrument, quote up to five
good and five bad examples of it, and give five suggestions to draw out more reasoning. Whatever
cannot be parsed is counted by reason and is never a rating.

`python -m teaching.coach lessons.jsonl --aspect=CLBM --model=NAME --out=scores.csv` rates
transcripts, {item, lines: [..]} a line; teaching/agreement.py holds the ratings against human ones.
"""

import argparse
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from errors import UserError, one_line_errors
from files import read_jsonl, write_table
from language import base as language
from language.base import LanguageModel
from paths import disk_argument

MOST_POINTS = 5  # examples of a kind, or suggestions
_MOST_WORDS = 5  # of a rating; a longer answer is prose (as the released scripts have it)
_NOTHING = ("na", "n/a", "nan", "none")


class Aspect(NamedTuple):
    """An item of an observation instrument.

    Attributes:
      name: what is rated, in words.
      definition: one or two sentences.
      levels: the scale's points in groups -> what these look like, low to high.
    """

    name: str
    definition: str
    levels: dict[tuple[int, ...], str]

    @property
    def scale(self) -> tuple[int, int]:
        points = [point for group in self.levels for point in group]
        return min(points), max(points)


def _class(name: str, definition: str, low: str, middle: str, high: str) -> Aspect:
    return Aspect(name, definition, {(1, 2): low, (3, 4, 5): middle, (6, 7): high})


def _mqi(name: str, definition: str, low: str, middle: str, high: str) -> Aspect:
    return Aspect(name, definition, {(1,): low, (2,): middle, (3,): high})


# The wording is ours; codes and scales are those of the CLASS and MQI instruments.
ASPECTS = {
    "CLPC": _class(
        "positive climate",
        "Positive climate is how warmly, respectfully and gladly teacher and students deal with "
        "each other, in words and otherwise.",
        "They keep their distance; warmth, praise and respect hardly occur.",
        "Warmth, praise and respect occur now and then, or between some of them.",
        "Warmth, praise and respect are there all the time.",
    ),
    "CLBM": _class(
        "behavior management",
        "Behavior management is how well the teacher encourages good behavior, and prevents and "
        "redirects misbehavior.",
        "Rules are unclear, misbehavior is frequent and answered late or in vain.",
        "Rules are partly clear, misbehavior occurs and is sometimes answered well.",
        "Rules are clear, the teacher foresees trouble, and little time is lost to it.",
    ),
    "CLINSTD": _class(
        "instructional dialogue",
        "Instructional dialogue is talk about the content in which teacher and students build on "
        "what was said before, so that understanding deepens and students take an active part.",
        "There is little discussion, the teacher speaks, and answers are of a few words.",
        "There are exchanges about the content, but they are short or held by a few.",
        "Long exchanges about the content build on each other and involve many students.",
    ),
    "EXPL": _mqi(
        "mathematical explanations",
        "A mathematical explanation says why: why a procedure works, why a method suits, why an "
        "answer is true or not. Saying how, step by step, is none.",
        "No explanation says why.",
        "A brief explanation says why, but most of the segment does not.",
        "Explanations that say why are what most of the segment is about.",
    ),
    "REMED": _mqi(
        "remediation of student errors and difficulties",
        "Remediation goes to the root of a student's misunderstanding; correcting the step or the "
        "fact alone is none.",
        "No misunderstanding is taken up at its root.",
        "A misunderstanding is taken up briefly.",
        "Misunderstandings are taken up at length and at their root.",
    ),
    "LANGIMP": _mqi(
        "imprecision in language or notation",
        "Imprecision is wrong or careless use of symbols, of technical terms, or of plain words "
        "for mathematical ideas, unless it is noticed and mended in the segment.",
        "Language and notation are precise.",
        "There is some imprecision.",
        "Imprecision is frequent or makes the content unclear.",
    ),
    "SMQR": _mqi(
        "student mathematical questioning and reasoning",
        "Students question and reason when they make conjectures, ask why, object to a claim with "
        "a reason, or explain their own thinking.",
        "No student questions or reasons.",
        "Some students do so briefly.",
        "Students do so often or at length.",
    ),
}
# How a rating is asked for: the number alone, with the levels described, after a reasoning.
STYLES = ("numerical", "numerical_descriptions", "numerical_reasoning")


def _transcript(lines: Sequence[str]) -> str:
    numbered = "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
    return f"This is a transcript of a lesson, with numbered lines.\n\n{numbered}\n\n"


def rating_prompt(aspect: Aspect, lines: Sequence[str], style: str = "numerical") -> str:
    """Asks for one number.

    Raises:
      UserError: a style that is not of STYLES.
    """
    if style not in STYLES:
        raise UserError(f"unknown style {style!r}; there are: {', '.join(STYLES)}")
    low, high = aspect.scale
    levels = "".join(
        f"{', '.join(map(str, points))}: {text}\n" for points, text in aspect.levels.items()
    )
    prompt = f"{_transcript(lines)}Rate the {aspect.name} from {low} (low) to {high} (high). "
    prompt += f"{aspect.definition}\n"
    if style == "numerical_descriptions":
        prompt += f"\nWhat the ratings mean:\n{levels}"
    if style == "numerical_reasoning":
        prompt += "First give your reasons, then a line 'Rating:' with the number.\n\nReasoning:"
        return prompt
    return f"{prompt}\nRating (a number from {low} to {high} and nothing else):"


def examples_prompt(aspect: Aspect, lines: Sequence[str]) -> str:
    """Asks for good and bad examples of an aspect, quoted."""
    form = 'Line number: <number>, Segment: "<copied from the transcript>", Reason: <why>'
    return (
        f"{_transcript(lines)}Find up to {MOST_POINTS} good examples of the {aspect.name} in it, "
        f"and up to {MOST_POINTS} bad ones: chances that were missed, or taken poorly. "
        f"{aspect.definition}\n\nAnswer in this form:\nGood examples\n1. {form}\n"
        f"Bad examples\n1. {form}\n\nGood examples"
    )


def suggestions_prompt(lines: Sequence[str]) -> str:
    """Asks for suggestions how to draw out more reasoning."""
    return (
        f"{_transcript(lines)}Many of the students' answers are short. Give the teacher "
        f"{MOST_POINTS} suggestions how to draw out more reasoning: questions and explanations by "
        "students, and talk about the mathematics among them.\n\nAnswer in this form:\n"
        'Suggestions\n1. Line number: <number>, Segment: "<copied from the transcript>", '
        "Suggestion: <what to do>\n\nSuggestions"
    )


def parse_rating(text: str, scale: tuple[int, int]) -> tuple[float | None, str | None]:
    """(rating, None), or (None, why there is none), by the rules of the released scripts.

    An answer that gives its reasons first is read after its last "Rating:" or the like.
    """
    text = re.split(r"\brating\b[^:\n]*:", text, flags=re.IGNORECASE)[-1].strip()
    if not text:
        return None, "empty"
    if len(text.split()) > _MOST_WORDS:
        return None, f"more than {_MOST_WORDS} words"
    if text.lower() in _NOTHING:
        return None, "not applicable"
    try:
        rating = float(text)
    except ValueError:
        return None, "not a number"
    if math.isnan(rating) or not scale[0] <= rating <= scale[1]:
        return None, "outside the scale"
    return rating, None


@dataclasses.dataclass(frozen=True)
class Point:
    """A quoted segment with what is said about it.

    Attributes:
      kind: "good", "bad" or "suggestion".
      line: the number that the coach gave, from 1.
      quoted: "here" if the segment stands in that line, else "elsewhere" or "nowhere".
    """

    kind: str
    line: int
    segment: str
    text: str
    quoted: str


_POINT = re.compile(
    r"\W*line(?:\s+numbers?)?\W*(?P<line>\d+)[^A-Za-z\"“]*(?:and\s*\d+\W*)?"
    r"segment\W*?[\"“](?P<segment>.*)[\"”]\W*?(?:reason|suggestion)\s*:\s*(?P<text>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_ENTRY = re.compile(r"^\s*\d+\s*[.)]\s*", re.MULTILINE)


def parse_points(
    text: str, lines: Sequence[str], kinds: Sequence[str] = ("good", "bad")
) -> tuple[list[Point], Counter]:
    """The points of an answer, and how many entries were left out, by reason.

    Args:
      text: an answer to examples_prompt, or to suggestions_prompt with kinds ("suggestion",).
      lines: of the transcript that was shown.
      kinds: of the answer's sections in order; the first has begun with the prompt.
    """
    points, failures = [], Counter()
    heads = [rf"^\W*{kind} examples\W*$" for kind in kinds]
    matches = [re.search(head, text, re.IGNORECASE | re.MULTILINE) for head in heads]
    starts = [0] + [match.end() if match else len(text) for match in matches[1:]]
    ends = [match.start() if match else len(text) for match in matches[1:]] + [len(text)]
    failures["no section"] += sum(match is None for match in matches[1:])
    for kind, start, end in zip(kinds, starts, ends, strict=True):
        entries = [entry.strip() for entry in _ENTRY.split(text[start:end])[1:]]
        failures["beyond the fifth"] += len(entries[MOST_POINTS:])
        for entry in entries[:MOST_POINTS]:
            match = _POINT.match(entry)
            if entry.strip(" .").lower() in ("", *_NOTHING):
                failures["empty"] += 1
            elif not match:
                failures["malformed"] += 1
            elif not 1 <= int(match["line"]) <= len(lines):
                failures["no such line"] += 1
            else:
                line, segment = int(match["line"]), match["segment"].strip()
                said = " ".join(match["text"].split())
                points.append(Point(kind, line, segment, said, _quoted(segment, line, lines)))
    return points, +failures


def _quoted(segment: str, line: int, lines: Sequence[str]) -> str:
    def plain(text):
        return " ".join(["", *re.findall(r"[^\W_]+", text.lower()), ""])

    wanted = plain(segment)
    if wanted.strip() and wanted in plain(lines[line - 1]):
        return "here"
    return "elsewhere" if wanted.strip() and wanted in plain(" ".join(lines)) else "nowhere"


class Answers(NamedTuple):
    """What a model said to some prompts: a value each, None where there is none, and why."""

    values: list[Any]
    failures: Counter


def ask(model: LanguageModel, prompts: Sequence[str], parse: Callable, **sampling) -> Answers:
    """Puts prompts to a model and parses each answer.

    Args:
      parse: text -> (value or None, reason of failure or None or a Counter of such reasons).
      sampling: of LanguageModel.generate.
    """
    values, failures = [], Counter()
    for completions in model.generate(prompts, **sampling):
        value, reason = parse(completions[0].text)
        values.append(value)
        failures.update([reason] if isinstance(reason, str) else reason or ())
    return Answers(values, failures)


def rate(
    model: LanguageModel,
    transcripts: Sequence[Sequence[str]],
    code: str,
    style: str = "numerical",
) -> Answers:
    """A rating of each transcript on an aspect, or None.

    Raises:
      UserError: an unknown aspect or style.
    """
    if code not in ASPECTS:
        raise UserError(f"unknown aspect {code!r}; there are: {', '.join(ASPECTS)}")
    aspect = ASPECTS[code]
    return ask(
        model,
        [rating_prompt(aspect, lines, style) for lines in transcripts],
        lambda text: parse_rating(text, aspect.scale),
        max_tokens=400 if style == "numerical_reasoning" else 16,
    )


def highlights(model: LanguageModel, lines: Sequence[str], code: str) -> Answers:
    """Good and bad examples of an aspect in a transcript: one list of Points."""
    prompt = examples_prompt(ASPECTS[code], lines)
    return ask(model, [prompt], lambda text: parse_points(text, lines), max_tokens=800)


def suggestions(model: LanguageModel, lines: Sequence[str]) -> Answers:
    """Suggestions for the teacher of a transcript: one list of Points."""
    return ask(
        model,
        [suggestions_prompt(lines)],
        lambda text: parse_points(text, lines, ("suggestion",)),
        max_tokens=800,
    )


def read_transcripts(path: Path) -> dict[str, list[str]]:
    """item -> lines of a transcript, of a json lines file.

    Raises:
      UserError, OSError: a row of another layout, or an item that occurs twice; it is named.
    """
    transcripts = {}
    for where, row in read_jsonl(path):
        texts = row.get("lines") if isinstance(row, dict) else None
        if not isinstance(texts, list) or not texts or "item" not in row:
            raise UserError(f"{where}: needs an item and its lines, a list of texts")
        if str(row["item"]) in transcripts:
            raise UserError(f"{where}: item {row['item']} occurs a second time")
        transcripts[str(row["item"])] = [str(text) for text in texts]
    if not transcripts:
        raise UserError(f"{path}: holds no transcript")
    return transcripts


@one_line_errors()
def main(arguments: Sequence[str] | None = None, load: Callable = language.load) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("transcripts", type=disk_argument)
    parser.add_argument("--aspect", required=True, choices=ASPECTS)
    parser.add_argument("--style", default=STYLES[0], choices=STYLES)
    language.add_arguments(parser, required=True)
    parser.add_argument("--out", type=disk_argument, required=True, help="csv of item, key, score")
    options = parser.parse_args(arguments)
    transcripts = read_transcripts(options.transcripts)
    model = load(options.model, **dict(options.option))
    rated = rate(model, list(transcripts.values()), options.aspect, options.style)
    rated_items = zip(transcripts, rated.values, strict=True)
    rows = [(item, options.aspect, value) for item, value in rated_items if value is not None]
    write_table(options.out, ("item", "key", "score"), rows)
    count = len(transcripts) - rated.failures.total()
    print(f"{options.out}: {count} of {len(transcripts)} rated")
    for reason, failed in rated.failures.most_common():
        print(f"not rated: {failed} ({reason})")


if __name__ == "__main__":
    main()
