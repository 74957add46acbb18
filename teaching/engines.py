"""Engines of DataEnvGym (arXiv 2410.06215): from a plan, so many of each skill, to records."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from data.world import INVERSE, Claim, World
from language.base import LanguageModel
from teaching.base import Item, Record, Task

_TRIES = 5000  # scenes that are looked at for a record


class Engine(Protocol):
    """Makes records of a skill; it may make fewer where it cannot."""

    def make(self, skill: str, count: int, rng: np.random.Generator) -> list[Record]: ...


def made(engine: Engine, plan: Mapping[str, int], rng: np.random.Generator) -> list[Record]:
    """Records of a plan, skill -> number."""
    return [r for skill, count in plan.items() for r in engine.make(skill, count, rng)]


def words_of(claim: Claim) -> tuple[str, ...]:
    """The relation of a claim, if it says one, and its nouns: what a skill may be finer by."""
    return (*([claim.relation] if claim.relation else []), *(thing.noun for thing in claim.things))


def _may_say(scene: Claim, word: str) -> bool:
    """Whether some caption of a scene says the word; it may be told from either thing."""
    return word in (*words_of(scene), INVERSE.get(scene.relation))


@dataclasses.dataclass(frozen=True)
class WorldEngine:
    """Scenes of the world with a hard negative, false by construction.

    A skill is a type of negative, of data.world.TYPES, or "type/word" of captions with that noun or
    relation.

    Attributes:
      plain: without negatives, a control.
    """

    world: World
    plain: bool = False

    def make(self, skill, count, rng):
        kind, _, word = skill.partition("/")
        records = []
        for _ in range(_TRIES * count):
            if len(records) == count:
                break
            scene = int(rng.integers(len(self.world)))
            if word and not _may_say(self.world.scene(scene), word):
                continue  # before anything is rendered
            example = self.world.example(scene)
            if word and word not in words_of(example.claim):
                continue
            if self.plain or kind in example.negatives:
                negatives = [] if self.plain else [example.negatives[kind]]
                about = {"caption": example.caption, "negatives": negatives}
                records.append({"skill": skill, "scene": scene, **about})
        return records


@dataclasses.dataclass(frozen=True)
class GoldEngine:
    """Training items of a skill as they are: a control of what a student learns of the form alone.

    Attributes:
      items: by their skill; of "skill/subskill" those of the skill.
    """

    items: Sequence[Item]

    def make(self, skill, count, rng):
        items = [item for item in self.items if item.skill == skill.partition("/")[0]]
        picked = [items[i] for i in sorted(rng.permutation(len(items))[:count])]
        return [dataclasses.asdict(item) for item in picked]


@dataclasses.dataclass(frozen=True)
class ProblemEngine:
    """A language model that writes problems of a skill after others of it.

    Where some fail it is asked once more, shown what there is.

    Attributes:
      items: to show, by their skill; of "skill/subskill" those of the skill.
      shown: of these in each prompt.
    """

    model: LanguageModel
    task: Task
    items: Sequence[Item]
    shown: int = 3

    def make(self, skill, count, rng):
        items = [item.question for item in self.items if item.skill == skill.partition("/")[0]]
        records: dict[str, Record] = {}
        for _ in range(2):
            prompts = []
            for _ in range(count - len(records)):
                some = [items[i] for i in rng.permutation(len(items))[: self.shown]]
                prompts.append(asking(f"need {skill}", [*some, *records]))
            for record in written_problems(self.model, self.task, prompts, skill, rng):
                records.setdefault(record["question"], record)
        return list(records.values())[:count]


# A problem as a language model is to write it.
_FIELDS = ("problem", "chain_of_thought", "final_answer")


def asking(what: str, shown: Sequence[str]) -> str:
    """The prompt for another problem like those that are shown."""
    form = "{" + ", ".join(f'"{name}": ".."' for name in _FIELDS) + "}"
    return (
        f"Problems that {what}:\n\n" + "\n\n".join(shown) + "\n\n"
        f"Write a new one for practice, as json {form}:\n"
    )


def written_problems(
    model: LanguageModel, task: Task, prompts: Sequence[str], skill: str, rng: np.random.Generator
) -> list[Record]:
    """The problems that a model writes after prompts, each once, those that hold."""
    if not prompts:
        return []
    seed = int(rng.integers(2**31))
    answers = model.generate(prompts, temperature=1.0, max_tokens=400, seed=seed)
    records = (read_problem(completions[0].text, task, skill) for completions in answers)
    return list({record["question"]: record for record in records if record}.values())


def read_problem(text: str, task: Task, skill: str) -> Record | None:
    """The item of a written problem, or None where it is not whole.

    It is whole if the task reads its own answer back from it, in the form that students are shown.
    """
    value = read_json_object(text) or {}
    if not all(isinstance(value.get(name), str) and value[name].strip() for name in _FIELDS):
        return None
    question, thought, answer = (value[name].strip() for name in _FIELDS)
    item = Item(question, skill, question, answer, extra={"explanation": thought})
    said = task.parse(f" {thought} {getattr(task, 'lead', '')} {answer}", item)
    return dataclasses.asdict(item) if said is not None and task.grade(said, item) else None


def read_json_object(text: str) -> dict | None:
    """The first json object in a text, or None."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None
