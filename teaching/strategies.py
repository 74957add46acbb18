"""Strategies for situations, kept in a library beside the student (arXiv 2408.07238).

The teacher sees situations that the student itself gets into, and says what to do in them; only
what makes the student better is kept. At use, the situation at hand finds its strategies. Of the
paper only abstract and summaries could be read: constants are ours. A situation may be a dialogue,
a kind of rejected caption, or two classes that a CLIP confuses.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.english import article, plural
from data.glyphs import NOUNS
from data.world import COLOURS, SIZES, Claim, Thing, render
from errors import UserError
from language.base import LanguageModel
from options import Count, check_known
from teaching.library import Entry, Library
from teaching.results import Point

KNOWN = 0.85  # cosine above which a scenario is one that the library has
FLOOR = 0.5  # cosine below which an entry does not apply
RETRIEVED = 3
LEAK_WORDS = 8


class Scenario(NamedTuple):
    """A situation: what describes it, the prompt that the student answers in it, and its source."""

    key: str
    text: str
    prompt: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Loop:
    """Rounds of scenarios and strategies.

    Attributes:
      scenarios: (round, answer) -> situations that the student gets into when it answers with
        answer(scenario): its own states, as DAgger has it.
      student: (scenario, strategies) -> its answer.
      teacher: scenario -> the teacher's own answer.
      advise: (scenario, the student's answer, the teacher's, advice that failed) -> strategies.
      better: (scenario, old answer, new answer) -> whether the new one is.
      library: is added to.
      most: new scenarios a round; refinements: further tries at a strategy; stop: no further round
        once fewer than this share of candidates is new.
    """

    scenarios: Callable
    student: Callable
    teacher: Callable
    advise: Callable
    better: Callable
    library: Library
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    most: int = 20
    refinements: int = 3
    stop: float = 0.1
    known: float = KNOWN

    def run(self, rounds: int = 5) -> list[dict[str, int]]:
        """Counts of each round: candidates, new, kept."""
        told = []
        for number in range(1, rounds + 1):
            candidates = list(self.scenarios(number, self.answer))
            new = spread(candidates, self.library, self.known, self.most)
            kept = sum(self._teach(scenario, number) for scenario in new)
            told.append({"candidates": len(candidates), "new": len(new), "kept": kept})
            if len(new) < self.stop * len(candidates) or not candidates:
                break
        return told

    def answer(self, scenario: Scenario) -> str:
        """The student's, with what the library knows."""
        return self.student(scenario, retrieve(self.library, scenario.text))

    def _teach(self, scenario: Scenario, number: int) -> bool:
        old, model = self.student(scenario, []), self.teacher(scenario)
        failed: list[list[str]] = []
        for attempt in range(1 + self.refinements):
            strategies = self.advise(scenario, old, model, failed)
            if strategies and self.better(scenario, old, self.student(scenario, strategies)):
                provenance = {"source": scenario.source, "round": number, "attempt": attempt}
                leaks = [s for s in strategies if repeats(s, model)]
                about = {**provenance, "leaks": len(leaks), **self.names}
                self.library.add(Entry(scenario.key, scenario.text, strategies, about))
                return True
            failed.append(strategies)
        return False


def retrieve(library: Library, text: str, k: int = RETRIEVED, floor: float = FLOOR) -> list[str]:
    """Strategies of the nearest entries above the floor, each once; none where nothing is near."""
    advice = [s for entry in library.nearest(text, k, floor) for s in entry.payload]
    return list(dict.fromkeys(advice))


def spread(
    candidates: Sequence[Scenario], library: Library, known: float, most: int
) -> list[Scenario]:
    """Scenarios that the library does not know, the farthest from all others first.

    One that is near another candidate that was taken is known, too.
    """
    distinct = list({c.key: c for c in reversed(candidates)}.values())[::-1]  # the first of a key
    if not distinct:
        return []
    vectors = library.vectors([c.text for c in distinct])
    nearest = np.array([library.familiarity(c.text) for c in distinct])
    chosen: list[Scenario] = []
    while len(chosen) < most and nearest.min() < known:
        at = int(nearest.argmin())
        chosen.append(distinct[at])
        nearest = np.maximum(nearest, vectors @ vectors[at])
        nearest[at] = np.inf
    return chosen


def coverage(library: Library, texts: Sequence[str], floor: float = FLOOR) -> float:
    """The share of situations for which the library has anything."""
    return float(np.mean([bool(library.nearest(text, 1, floor)) for text in texts]))


def repeats(text: str, source: str, words: int = LEAK_WORDS) -> bool:
    """Whether a text repeats so many consecutive words of another: it says the words themselves."""

    def runs(part):
        said = re.findall(r"[\w']+", part.lower())
        return {tuple(said[i : i + words]) for i in range(len(said) - words + 1)}

    return bool(runs(text) & runs(source))


def leak_rate(library: Library, answers: Mapping[str, str]) -> float:
    """The share of strategies that repeat the teacher's answer to their scenario, by entry key."""
    leaks = [
        repeats(strategy, answers[key])
        for key, entry in library.entries.items()
        if key in answers
        for strategy in entry.payload
    ]
    return float(np.mean(leaks)) if leaks else 0.0


def parse_strategies(text: str, most: int = 3) -> list[str]:
    """The entries of a numbered list, at most so many."""
    entries = re.findall(r"^\s*\d+[.)]\s*(\S.*)$", text, re.MULTILINE)
    return [" ".join(entry.split()) for entry in entries[:most]]


def advisor(model: LanguageModel) -> Callable:
    """advise() of a Loop by a language model."""

    def advise(scenario, old, teachers, failed):
        tried = "".join(f"This did not help: {'; '.join(each)}\n" for each in failed if each)
        prompt = (
            f"Situation: {scenario.text}\nA student said: {old}\nBetter: {teachers}\n{tried}"
            "In up to three numbered lines, say what to do in such a situation. Do not give the "
            "words to say.\n1."
        )
        seed = len(failed)
        text = model.generate(
            [prompt], max_tokens=200, temperature=0.7 if failed else 0.0, seed=seed
        )[0][0].text
        return parse_strategies(f"1.{text}")

    return advise


def parse_verdict(text: str) -> str | None:
    """ "A", "B" or "tie": the first of them that stands on its own, or None."""
    match = re.search(r"\b(?:(A|B)|(tie))\b", text) or re.search(r"\b(tie)\b", text, re.I)
    return None if match is None else match[1] if match[1] in ("A", "B") else "tie"


@dataclasses.dataclass
class Judge:
    """better() of a Loop by a language model that must agree with itself in both orders.

    Attributes:
      verdicts: how often both orders agreed on the new answer, on the old, on a tie, or did not
        agree ("order"), or could not be read ("unread").
    """

    model: LanguageModel
    verdicts: Counter = dataclasses.field(default_factory=Counter)

    def __call__(self, scenario: Scenario, old: str, new: str) -> bool:
        verdict = self._verdict(scenario, old, new)
        self.verdicts[verdict] += 1
        return verdict == "new"

    def _verdict(self, scenario, old: str, new: str) -> str:
        prompts = [
            f"Situation: {scenario.text}\nA: {a}\nB: {b}\nWhich is better: A, B or tie?\nAnswer:"
            for a, b in ((old, new), (new, old))
        ]
        said = [parse_verdict(c[0].text) for c in self.model.generate(prompts, max_tokens=8)]
        if None in said:
            return "unread"
        first = {"A": "old", "B": "new", "tie": "tie"}[said[0]]
        second = {"A": "new", "B": "old", "tie": "tie"}[said[1]]
        return first if first == second else "order"


# A CLIP's classes: a strategy is a description that joins a class's prompts.


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, most: int) -> list[tuple[int, int]]:
    """The classes that are taken for others most often, (true, predicted), ties by number."""
    wrong = Counter((int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b)
    return [pair for pair, _ in sorted(wrong.items(), key=lambda each: (-each[1], each[0]))[:most]]


@dataclasses.dataclass(frozen=True)
class PromptLibrary:
    """Descriptions for the classes of a frozen CLIP, kept if held-out pictures are named better.

    Attributes:
      encode: texts -> unit vectors.
      prompts: class -> its prompts, whose mean is its vector.
    """

    encode: Callable[[Sequence[str]], np.ndarray]
    prompts: tuple[tuple[str, ...], ...]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The class of each unit vector of an image."""
        flat = self.encode([text for prompts in self.prompts for text in prompts])
        ends = np.cumsum([len(prompts) for prompts in self.prompts])
        means = np.stack([part.mean(axis=0) for part in np.split(flat, ends[:-1])])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return (images @ means.T).argmax(axis=1)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        return float((self.predict(images) == labels).mean())

    def with_prompt(self, of: int, text: str) -> "PromptLibrary":
        rows = list(self.prompts)
        rows[of] = (*rows[of], text)
        return dataclasses.replace(self, prompts=tuple(rows))

    def learn(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        describe: Callable[[int, int], Sequence[str]],
        rounds: int = 1,
        most: int = 10,
    ) -> tuple["PromptLibrary", list[dict]]:
        """Adds descriptions of confused classes that raise accuracy on these pictures.

        Report accuracy on others: these chose.

        Args:
          describe: (class, the one it is taken for) -> descriptions that tell them apart.

        Returns:
          The library, and of each description tried {class, confused_with, text, gain, kept}.
        """
        if len(images) != len(labels):
            raise UserError(f"{len(images)} images, but {len(labels)} labels")
        now, tried = self, []
        score = now.accuracy(images, labels)
        for _ in range(rounds):
            for true, other in confused_pairs(labels, now.predict(images), most):
                for text in describe(true, other):
                    new = now.with_prompt(true, text)
                    gain = new.accuracy(images, labels) - score
                    about = {"class": true, "confused_with": other, "text": text}
                    tried.append({**about, "gain": gain, "kept": gain > 0})
                    if gain > 0:
                        now, score = new, score + gain
        return now, tried


# What may be said of a class in the world beside its name; none of it is about one class alone.
DESCRIPTIONS = (
    "a big {noun}",
    "a small {noun}",
    "a picture of a {noun}",
    "this shows a {noun} on gray",
    "two {nouns}",
    "a scene with a {noun} on a red tile",
)


def experiment(
    lend, per_class: Count = 4, rounds: Count = 2, most: Count = 40, nouns: str = "all"
) -> list[Point]:
    """A prompt library for a frozen CLIP in the world: accuracy on pictures that did not choose.

    Args:
      lend: see teach.py.
      per_class: pictures of each class that choose, and as many others that are reported.
      rounds, most: of PromptLibrary.learn.
      nouns: the classes, of data.glyphs.NOUNS.

    Returns:
      accuracy, at x = 0, of the names alone, of what was chosen, of as many descriptions added to
      classes at random, and of all added to all; how many were tried and kept.
    """
    check_known("class split", nouns, NOUNS)
    world = lend.world()
    names = NOUNS[nouns]
    student = lend.clip(world)
    encoder = student.encoder(student.params)
    labels = np.repeat(np.arange(len(names)), per_class)

    def pictures(part: int) -> np.ndarray:
        rng = np.random.default_rng((lend.seed, part))
        return encoder.images([_picture(names[i], world.size, rng) for i in labels])

    def texts(i: int) -> list[str]:
        noun = names[i]
        filled = [text.format(noun=noun, nouns=plural(noun)) for text in DESCRIPTIONS]
        return [text.replace(f"a {noun}", f"{article(noun)} {noun}") for text in filled]

    def measure() -> dict:
        shown, others = pictures(0), pictures(1)
        start = PromptLibrary(encoder.texts, tuple((f"{article(n)} {n}",) for n in names))
        chosen, tried = start.learn(shown, labels, lambda true, other: texts(true), rounds, most)
        kept = sum(each["kept"] for each in tried)
        rng = np.random.default_rng((lend.seed, 2))
        at_random = everything = start
        for _ in range(kept):
            i = int(rng.integers(len(names)))
            at_random = at_random.with_prompt(i, texts(i)[int(rng.integers(len(DESCRIPTIONS)))])
        for i in range(len(names)):
            for text in texts(i):
                everything = everything.with_prompt(i, text)
        libraries = {"names alone": start, "chosen": chosen, "at random": at_random}
        libraries["all of all"] = everything
        return {
            "accuracy": {name: each.accuracy(others, labels) for name, each in libraries.items()},
            "tried": len(tried),
            "kept": kept,
        }

    measured = lend.cells.once("prompts", measure)
    points = [Point(name, 0, "accuracy", value) for name, value in measured["accuracy"].items()]
    return points + [Point("chosen", 0, name, measured[name]) for name in ("tried", "kept")]


def _picture(noun: str, size: int, rng: np.random.Generator) -> np.ndarray:
    colour, extent = list(COLOURS)[int(rng.integers(len(COLOURS)))], list(SIZES)[rng.integers(2)]
    return render(Claim((Thing(noun, 1, colour, extent),), ""), size, rng)
