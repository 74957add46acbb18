"""Writes captions of the wanted types and counts what became of every draft."""

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from captions import types
from captions.checks import Pair, rejection
from captions.sentences import normalise, parse
from captions.writers import Draft, Request, Writer
from data import sources

# What is counted of a type beside the reasons of its checks and those of this file.
COUNTS = ("wanted", "written", "drafts", "passed")
UNFIT = ("not_applicable", "no_answer")  # requests that brought no draft
LATER = ("not_fluent", "nearer_the_image", "duplicate")  # after the checks of a pair alone

# (images, captions, drafts) -> how much nearer each draft is to its image than its caption is.
ImageMargin = Callable[[Sequence, Sequence[str], Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Item:
    """A text to write for: a caption with the further ones of its image, or a class's name."""

    text: str
    image: str  # its file's name, or where the record comes from
    others: tuple[str, ...] = ()
    pixels: object = None  # the record's image, for a check that looks at it


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much is asked for, and what is held against the drafts beside their type's checks.

    Attributes:
      per_type: negatives of each type that are wanted for a caption.
      attempts: times that a writer is asked for what is still missing.
      fluency_margin: nats a token by which a draft may be less likely than its caption.
      image_margin: such as captions/teacher.py's; None: drafts are not held against the image.
      nearest: what image_margin may be at most.
    """

    per_type: int = 1
    attempts: int = 2
    fluency_margin: float = 1.0
    image_margin: ImageMargin | None = None
    nearest: float = 0.0


@dataclasses.dataclass
class Tally:
    """What a piece of work came to; tallies add up.

    Attributes:
      types: for each type COUNTS, UNFIT, LATER and the reasons of its checks.
      captions: texts that were written for.
      tokens: generated for drafts, also where they were kept from before.
      prompt_tokens, cost: of what was asked anew, as far as the writer counts it.
      seconds: of work.
    """

    types: dict[str, Counter] = dataclasses.field(default_factory=lambda: defaultdict(Counter))
    captions: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        numbers = [field.name for field in dataclasses.fields(self) if field.name != "types"]
        total = Tally(**{name: getattr(self, name) + getattr(other, name) for name in numbers})
        for tally in (self, other):
            for name, counts in tally.types.items():
                total.types[name].update(counts)
        return total

    def to_json(self) -> dict:
        counts = {name: dict(counts) for name, counts in self.types.items()}
        return vars(self) | {"types": counts}

    @classmethod
    def from_json(cls, content: Mapping) -> "Tally":
        tally = cls(**{**content, "types": defaultdict(Counter)})
        for name, counts in content["types"].items():
            tally.types[name].update(counts)
        return tally


def items(source, records: int | None = None, with_images: bool = False) -> Sequence[list[Item]]:
    """What there is to write for in each of the first records; of videos, their classes."""
    if hasattr(source, "classes"):
        classes = enumerate(source.classes[:records])
        return [[Item(name, f"class {label}")] for label, name in classes]
    length = len(source) if records is None else min(records, len(source))
    return _Captions(source, length, with_images)


class _Captions:
    def __init__(self, source, length: int, with_images: bool):
        self._source, self._length, self._with_images = source, length, with_images

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if self._with_images:
            record = self._source[index]
        else:
            record = sources.without_image(self._source, index)
        captions = record["captions"]
        return [
            Item(
                text,
                sources.image_name(record),
                (*captions[:i], *captions[i + 1 :]),
                record.get("image"),
            )
            for i, text in enumerate(captions)
        ]


def write(
    batch: Sequence[Item], writer: Writer, names: Sequence[str], limits: Limits
) -> tuple[list[dict], Tally]:
    """Writes for each text of a batch.

    Returns:
      For each text {image, caption, negatives: [{text, type, writer, model, prompt_version, seed,
      attempts}]}, the negatives in the order of `names`, and what became of the drafts.
    """
    start, tally = time.perf_counter(), Tally(captions=len(batch))
    prompt_tokens, cost = writer.spent
    written = [{name: [] for name in names} for _ in batch]
    for name in names:
        tally.types[name]["wanted"] += limits.per_type * len(batch)
    for attempt in range(limits.attempts):
        missing = [
            (i, name)
            for i, of_item in enumerate(written)
            for name in names
            if len(of_item[name]) < limits.per_type
        ]
        if not missing:
            break
        requests = [Request(batch[i].text, batch[i].others, name) for i, name in missing]
        answers = writer(requests, attempt)
        candidates = []
        for (i, name), drafts in zip(missing, answers, strict=True):
            counts = tally.types[name]
            if not drafts:
                reason = "no_answer" if drafts is None else "not_applicable"
                counts[reason] += drafts is None or attempt == 0
                continue
            tally.tokens += sum(draft.tokens for draft in drafts)
            candidates += [(i, name, text) for text in _checked(batch[i], name, drafts, counts)]
        candidates = _fluent(batch, candidates, writer, limits, tally)
        candidates = _false_of_image(batch, candidates, limits, tally)
        for i, name, text in candidates:
            _accept(batch[i], written[i], name, text, writer, attempt, limits, tally)
    rows = [
        {
            "image": item.image,
            "caption": item.text,
            "negatives": [negative for name in names for negative in of_item[name]],
        }
        for item, of_item in zip(batch, written, strict=True)
    ]
    tally.seconds = time.perf_counter() - start
    tally.prompt_tokens, tally.cost = writer.spent[0] - prompt_tokens, writer.spent[1] - cost
    return rows, tally


def tidy(draft: str, caption: str) -> str:
    """The draft with the first letter and the end of its caption, which would else give it away."""
    sentence, draft = parse(caption), " ".join(draft.split())
    if not sentence.words or not draft:
        return draft
    ending = sentence.gaps[-1].rstrip()
    if not draft.endswith(ending) or not ending:
        draft = draft.rstrip(" .!?,;:") + ending
    first = caption.lstrip()[0]
    return (draft[0].upper() if first.isupper() else draft[0].lower()) + draft[1:]


def judge(item: Item, name: str, draft: Draft) -> tuple[str, str | None]:
    """A draft as it would be written, and the check of its type that rejects it, if one does."""
    kind = types.load(name)
    text = tidy(draft.text, item.text) if kind.of == "caption" else draft.text
    return text, rejection(Pair(item.text, text, item.others, draft.complete), kind.checks)


def _checked(item: Item, name: str, drafts: Sequence[Draft], counts: Counter) -> list[str]:
    """Those drafts that the type's checks let pass."""
    passed = []
    for draft in drafts:
        text, reason = judge(item, name, draft)
        counts["drafts"] += 1
        if reason:
            counts[reason] += 1
        else:
            passed.append(text)
    return passed


def _fluent(batch, candidates, writer: Writer, limits: Limits, tally: Tally) -> list:
    """Those that are not much less likely than their captions, where the writer can tell."""
    held = [c for c in candidates if types.load(c[1]).fluent]
    likelihoods = held and writer.log_likelihoods(
        [text for _, _, text in held] + [batch[i].text for i, _, _ in held]
    )
    if likelihoods is None or not held:
        return candidates
    of_drafts, of_captions = np.split(likelihoods, 2)
    return _drop(
        candidates, held, of_drafts < of_captions - limits.fluency_margin, "not_fluent", tally
    )


def _false_of_image(batch, candidates, limits: Limits, tally: Tally) -> list:
    """Those that the teacher does not find nearer the image than their captions."""
    if limits.image_margin is None or not candidates:
        return candidates
    margins = limits.image_margin(
        [batch[i].pixels for i, _, _ in candidates],
        [batch[i].text for i, _, _ in candidates],
        [text for _, _, text in candidates],
    )
    return _drop(candidates, candidates, margins > limits.nearest, "nearer_the_image", tally)


def _drop(candidates: list, held: list, rejected, reason: str, tally: Tally) -> list:
    dropped = {candidate for candidate, is_out in zip(held, rejected, strict=True) if is_out}
    for _, name, _ in (candidate for candidate in held if candidate in dropped):
        tally.types[name][reason] += 1
    return [candidate for candidate in candidates if candidate not in dropped]


def _accept(item, of_item, name, text, writer, attempt, limits, tally) -> None:
    """Takes a text unless it is a sibling's; what is more than wanted passes, and is left."""
    counts = tally.types[name]
    siblings = [negative["text"] for negatives in of_item.values() for negative in negatives]
    if normalise(text) in {normalise(t) for t in siblings}:
        counts["duplicate"] += 1
        return
    counts["passed"] += 1
    if len(of_item[name]) == limits.per_type:
        return
    counts["written"] += 1
    of_item[name].append(
        {
            "text": text,
            "type": name,
            "writer": writer.name,
            "model": writer.model,
            "prompt_version": writer.prompt_version(name),
            "seed": writer.seed,
            "attempts": attempt + 1,
        }
    )
