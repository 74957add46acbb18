"""A teacher that makes training data where its student is weak (DataEnvGym, arXiv 2410.06215).

Three environments tell the teacher more or less: errors alone (OpenEnded), accuracy by skill
(Allocation), a tree of subskills with what was spent on each (teaching/skill_tree.py). Each is a
Teacher of teaching/base.py; engines turn a plan into records.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from data.world import TYPES, World
from errors import UserError
from language.base import LanguageModel
from options import Count, check_known
from teaching.base import Episode, Item, Outcome, Record, State, Student, Task, Teacher, accuracy
from teaching.budget import allocate
from teaching.results import Point


class Engine(Protocol):
    """Makes records of a skill; it may make fewer where it cannot."""

    def make(self, skill: str, count: int, rng: np.random.Generator) -> list[Record]: ...


@dataclasses.dataclass(frozen=True)
class WorldEngine:
    """Scenes of the world with a hard negative of a type, false by construction.

    Attributes:
      kinds: skill -> type of negative, of data.world.TYPES; "" for a caption without negatives.
    """

    world: World
    kinds: Mapping[str, str] = dataclasses.field(default_factory=lambda: {t: t for t in TYPES})

    def make(self, skill, count, rng):
        records, kind = [], self.kinds[skill]
        while len(records) < count:
            scene = int(rng.integers(len(self.world)))
            example = self.world.example(scene)
            if not kind or kind in example.negatives:
                negatives = [example.negatives[kind]] if kind else []
                about = {"caption": example.caption, "negatives": negatives}
                records.append({"skill": skill, "scene": scene, **about})
        return records


def made(engine: Engine, plan: Mapping[str, int], rng: np.random.Generator) -> list[Record]:
    """Records of a plan, skill -> number."""
    return [r for skill, count in plan.items() for r in engine.make(skill, count, rng)]


# Weights of skills: (state, skills, rng) -> one a skill.
Weights = Callable[[State, Sequence[str], np.random.Generator], Sequence[float]]


def by_error(state: State, skills: Sequence[str], rng) -> list[float]:
    """In proportion to the student's error."""
    scores = accuracy(state.last.outcomes)
    return [1 - scores[skill] for skill in skills]


def uniform(state, skills, rng) -> list[float]:
    """A control: the same for each; without rng and student, the stateless twin."""
    return [1.0] * len(skills)


def at_random(state, skills, rng) -> list[float]:
    """A control: another random split each turn."""
    return list(rng.dirichlet(np.ones(len(skills))))


POLICIES: dict[str, Weights] = {"by error": by_error, "uniform": uniform, "random": at_random}
PLAIN = "captions only"  # the control of the format: as many captions, without negatives


def check_policies(policies: Sequence[str]) -> None:
    """Raises a UserError for what is neither of POLICIES nor PLAIN, before anything is computed."""
    for policy in policies:
        check_known("policy", policy, (*POLICIES, PLAIN))


@dataclasses.dataclass(frozen=True)
class Allocation(Teacher):
    """The skill list: a budget spread over skills by weights.

    Attributes:
      skills: of the student's items; what engine.make() knows.
      policy: a name of POLICIES.
    """

    skills: tuple[str, ...]
    policy: str
    engine: Engine = dataclasses.field(repr=False)

    def __post_init__(self):
        check_known("policy", self.policy, POLICIES)

    def plan(self, state, budget, rng):
        weights = POLICIES[self.policy](state, self.skills, rng)
        return allocate(dict(zip(self.skills, weights, strict=True)), budget)

    def make(self, plan, rng):
        return made(self.engine, plan, rng)


def water_filling(
    curves: Mapping[str, Callable[[int], float]], start: Mapping[str, int], budget: int
) -> dict[str, int]:
    """The best split where each skill's accuracy over records is known and concave: greedily.

    Args:
      curves: skill -> accuracy after so many records.
      start: records that each skill has had.
    """
    plan = dict.fromkeys(curves, 0)
    for _ in range(budget):
        gains = {s: f(start[s] + plan[s] + 1) - f(start[s] + plan[s]) for s, f in curves.items()}
        plan[max(gains, key=gains.get)] += 1
    return plan


def weakest(outcomes: Sequence[Outcome], count: int, below: float = 0.8) -> list[str]:
    """The skills of lowest accuracy, if below a threshold. (The released code for tools counts
    right answers as errors and picks the best.)"""
    scores = accuracy(outcomes)
    return [skill for skill in sorted(scores, key=scores.get) if scores[skill] < below][:count]


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


_FIELDS = ("problem", "chain_of_thought", "final_answer")


@dataclasses.dataclass(frozen=True)
class OpenEnded(Teacher):
    """A language model that writes problems after the student's errors.

    A record whose own answer the task does not read back is dropped, as is one that was there.

    Attributes:
      training: items to show beside the errors; none of them may be one that the student is
        tested on.
      stateless: show training items only, a control.
    """

    model: LanguageModel = dataclasses.field(repr=False)
    task: Task = dataclasses.field(repr=False)
    training: tuple[Item, ...] = dataclasses.field(repr=False)
    stateless: bool = False
    shown: int = 3

    def plan(self, state, budget, rng):
        keys = {outcome.item.key for outcome in state.last.outcomes}
        if shared := [item.key for item in self.training if item.key in keys]:
            raise UserError(f"training item {shared[0]} is one that the student is tested on")
        errors = [o.item.question for o in state.last.outcomes if not o.correct]
        questions = [item.question for item in self.training]
        prompts = []
        for _ in range(budget):
            picked = [questions[i] for i in rng.permutation(len(questions))[: self.shown]]
            if not self.stateless:
                picked += [errors[i] for i in rng.permutation(len(errors))[: self.shown]]
            prompts.append([picked[i] for i in rng.permutation(len(picked))])
        return {"shown": prompts, "seed": int(rng.integers(2**31))}

    def make(self, plan, rng):
        form = "{" + ", ".join(f'"{name}": ".."' for name in _FIELDS) + "}"
        prompts = [
            "A student finds problems like these hard:\n\n"
            + "\n\n".join(shown)
            + f"\n\nWrite a new one for practice, as json {form}:\n"
            for shown in plan["shown"]
        ]
        answers = self.model.generate(prompts, temperature=1.0, max_tokens=400, seed=plan["seed"])
        records, seen = [], set()
        for completions in answers:
            record = self.record(completions[0].text)
            if record and record["question"] not in seen:
                seen.add(record["question"])
                records.append(record)
        return records

    def record(self, text: str) -> Record | None:
        """The problem of an answer in the task's own form, or None where it is not whole."""
        value = read_json_object(text) or {}
        if not all(isinstance(value.get(name), str) and value[name].strip() for name in _FIELDS):
            return None
        question, thought, answer = (value[name].strip() for name in _FIELDS)
        item = Item(question, "made", question, answer, extra={"explanation": thought})
        said = self.task.parse(f" {thought} {getattr(self.task, 'lead', '')} {answer}", item)
        if said is None or not self.task.grade(said, item):
            return None
        return dataclasses.asdict(item)


def filtered(records: Sequence[Record], student: Student) -> tuple[list[Record], int]:
    """Records that the student does not answer rightly yet, and how many it knows already."""
    outcomes = student.answer([Item(**record) for record in records])
    kept = [r for r, outcome in zip(records, outcomes, strict=True) if not outcome.correct]
    return kept, len(records) - len(kept)


def discover(model: LanguageModel, items: Sequence[Item], retries: int = 3) -> dict[str, str]:
    """A skill for each item's key, found by a language model in three stages.

    It names a skill for each item, groups the names, and items whose name is in no group are put
    into one.

    Raises:
      UserError: it names no groups, or an item goes into none of them after the retries.
    """
    prompts = [f"Problem: {i.question}\nSkill it needs, in snake_case:" for i in items]
    names = [_snake(each[0].text) for each in model.generate(prompts, max_tokens=12, stop=("\n",))]
    listed = ", ".join(dict.fromkeys(names))
    text = model.generate(
        [f"Group these skills, each in one group, in lines 'n. Group: skill, skill':\n{listed}\n"],
        max_tokens=600,
    )[0][0].text
    group_of = {}
    for line in re.finditer(r"^\s*\d+\.\s*([^:\n]+):\s*(.+)$", text, re.MULTILINE):
        for name in line[2].split(","):
            group_of.setdefault(_snake(name), line[1].strip())
    groups = list(dict.fromkeys(group_of.values()))
    if not groups:
        raise UserError(f"the model {model.name} named no groups of skills")
    grouped = {}
    for item, name in zip(items, names, strict=True):
        grouped[item.key] = group_of.get(name) or _classified(model, item, groups, retries)
    return grouped


def _classified(model, item: Item, groups: Sequence[str], retries: int) -> str:
    prompt = f"Groups: {'; '.join(groups)}\nProblem: {item.question}\nIts group:"
    for attempt in range(retries):
        sampling = {"temperature": 0.7, "seed": attempt} if attempt else {}
        text = model.generate([prompt], max_tokens=16, stop=("\n",), **sampling)[0][0].text
        hits = [group for group in groups if group.lower() in text.lower()]
        if hits:
            return max(hits, key=len)
    raise UserError(f"item {item.key} was put into none of the groups in {retries} attempts")


def _snake(text: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", text.lower()))


def experiment(
    lend,
    turns: Count = 2,
    budget: Count = 240,
    policies: Sequence[str] = ("by error", "uniform", "random", PLAIN),
    tested: Count = 150,
) -> list[Point]:
    """Does allocation by feedback beat uniform, on composition at equal retention, in the world?

    Args:
      lend: see teach.py.
      budget: hard negatives a turn.
      policies: of POLICIES, or PLAIN.
      tested: scenes that the teacher looks at, and as many others that are reported, a split.

    Returns:
      Over turns: composition (mean over types, scenes and classes that the teacher never saw),
      worst type, retention.
    """
    check_policies(policies)
    world = lend.world(num_negatives=1)
    items = lend.tests(tested, split="seen")
    skills = tuple(dict.fromkeys(item.skill for item in items))
    others = lend.tests(tested, sample=1)

    def run(policy: str):
        plain = policy == PLAIN
        engine = WorldEngine(world, {s: "" if plain else s for s in skills})
        teacher = Allocation(skills, "uniform" if plain else policy, engine)

        def measure(student):
            scores = accuracy(student.answer(others))
            by_type = [[v for k, v in scores.items() if k.endswith(f"/{s}")] for s in skills]
            return {
                "composition": float(np.mean(list(scores.values()))),
                "worst type": float(min(map(np.mean, by_type))),
                "retention": lend.retention(student),
            }

        folder = lend.cells.folder / policy.replace(" ", "_")
        start = lend.clip(world)
        episode = Episode(
            start, teacher, items, folder, turns, budget, seed=lend.seed, measure=measure
        )
        return dataclasses.replace(episode, say=lend.cells.say).run()[1]

    return [
        Point(policy, turn.number, metric, value)
        for policy in policies
        for turn in run(policy)
        for metric, value in turn.measured.items()
    ]
