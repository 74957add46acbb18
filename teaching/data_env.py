"""A teacher that makes training data where its student is weak (DataEnvGym, arXiv 2410.06215).

Three environments tell the teacher more or less: errors alone (OpenEnded), accuracy by skill
(Allocation), a tree of subskills with what was spent on each (teaching/skill_tree.py). Each is a
Teacher of teaching/base.py; teaching/engines.py turns a plan into records. The experiment here is
in the world, that of teaching/photographs.py on photographs, that of teaching/problems.py in text.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from data.glyphs import NOUNS
from data.world import INVERSE, Claim, World
from errors import UserError
from language.base import LanguageModel
from options import Count, Share, check_known
from teaching.base import (
    Episode,
    Item,
    Outcome,
    Record,
    State,
    Student,
    Task,
    Teacher,
    Turn,
    accuracy,
)
from teaching.budget import allocate
from teaching.engines import Engine, WorldEngine, asking, made, written_problems
from teaching.results import Point
from teaching.skill_tree import TREE_POLICIES, SkillTree

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


def weakest(state, skills, rng) -> list[float]:
    """All of it to the weaker half of the skills, of those below a threshold."""
    low = lowest(state.last.outcomes, max(1, len(skills) // 2))
    return [float(skill in low) for skill in skills]


POLICIES: dict[str, Weights] = {
    "by error": by_error,
    "weakest": weakest,
    "uniform": uniform,
    "random": at_random,
}
PLAIN = "captions only"  # the control of the format: as many captions, without negatives


TREES = {f"{name} tree": policy for name, policy in TREE_POLICIES.items()}


def check_policies(policies: Sequence[str], known: Sequence[str] = (*POLICIES, PLAIN)) -> None:
    """Raises a UserError for a policy that is not known, before anything is computed."""
    for policy in policies:
        check_known("policy", policy, known)


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


def lowest(outcomes: Sequence[Outcome], count: int, below: float = 0.8) -> list[str]:
    """The skills of lowest accuracy, if below a threshold. (The released code for tools counts
    right answers as errors and picks the best.)"""
    scores = accuracy(outcomes)
    return [skill for skill in sorted(scores, key=scores.get) if scores[skill] < below][:count]


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
        return {"shown": prompts}

    def make(self, plan, rng):
        prompts = [asking("a student finds hard", shown) for shown in plan["shown"]]
        return written_problems(self.model, self.task, prompts, "made", rng)


def filtered(records: Sequence[Record], student: Student) -> tuple[list[Record], int]:
    """Records that the student does not answer rightly yet, and how many it knows already."""
    outcomes = student.answer([Item(**record) for record in records])
    kept = [r for r, outcome in zip(records, outcomes, strict=True) if not outcome.correct]
    return kept, len(records) - len(kept)


@dataclasses.dataclass(frozen=True)
class Unknown(Teacher):
    """A teacher whose material leaves out what a student knows before it is taught."""

    teacher: Teacher
    student: Student = dataclasses.field(repr=False)

    def plan(self, state, budget, rng):
        return self.teacher.plan(state, budget, rng)

    def make(self, plan, rng):
        return filtered(self.teacher.make(plan, rng), self.student)[0]


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


def chosen(turns: Sequence[Turn], most_lost: float) -> Turn:
    """The turn to keep: of those that lost at most so much retention, the best to the teacher."""
    first = turns[0].measured["retention"]
    kept = [turn for turn in turns if first - turn.measured["retention"] <= most_lost + 1e-9]
    return max(kept, key=lambda turn: np.mean(list(accuracy(turn.outcomes).values())))


# What makes a skill finer than a type of negative, by what a caption claims.
FINER: dict[str, Callable[[Claim], str]] = {
    "types": lambda claim: "",
    "relations": lambda claim: claim.relation,
    "nouns": lambda claim: claim.things[0].noun,
}


def finer(items: Sequence[Item], by: str) -> list[Item]:
    """Items of the world whose skill is "type/word", by FINER, where their caption has one."""
    words = (FINER[by](item.extra["claim"]) for item in items)
    return [
        dataclasses.replace(item, skill=f"{item.skill}/{word}" if word else item.skill)
        for item, word in zip(items, words, strict=True)
    ]


def any_words(world: World) -> Callable:
    """propose of a SkillTree over types of negatives: relations and nouns, at random."""

    def propose(skill, taken, count, rng):
        nouns = NOUNS[world.nouns]
        some = [*INVERSE, *(nouns[int(rng.integers(len(nouns)))] for _ in range(count))]
        return [some[i] for i in rng.permutation(len(some)) if some[i] not in taken][:count]

    return propose


def teacher_in(world: World, policy: str, skills: Sequence[str]) -> Teacher:
    """The teacher of a policy, which engine.make() of the world serves."""
    engine = WorldEngine(world, plain=policy == PLAIN)
    if policy in TREES:
        return SkillTree(tuple(skills), TREES[policy], any_words(world), engine)
    return Allocation(tuple(skills), "uniform" if policy == PLAIN else policy, engine)


def experiment(
    lend,
    turns: Count = 2,
    budget: Count = 240,
    policies: Sequence[str] = ("by error", "uniform", "random", PLAIN),
    tested: Count = 150,
    skills: Literal["types", "relations", "nouns"] = "types",
    fit_from: Literal["base", "last"] = "base",
    most_lost: Share = 0.1,
) -> list[Point]:
    """Does allocation by feedback beat uniform, on composition at equal retention, in the world?

    Args:
      lend: see teach.py.
      budget: hard negatives a turn.
      policies: of POLICIES, PLAIN, or of TREES, whose subskills are relations and nouns.
      tested: scenes that the teacher looks at, and as many others that are reported, a split.
      skills: that a budget is spread over: types of negatives, or types by relation or noun.
      fit_from: see Episode.
      most_lost: of retention, in a turn that may be chosen.

    Returns:
      Over turns: composition (mean over types, scenes and classes that the teacher never saw),
      worst type, retention; at the last, composition of the turn that is chosen.
    """
    check_policies(policies, (*POLICIES, PLAIN, *TREES))
    world = lend.world(num_negatives=1)
    by_type = lend.tests(tested, split="seen")
    types = tuple(dict.fromkeys(item.skill for item in by_type))
    others = lend.tests(tested, sample=1)

    def measure(student):
        scores = accuracy(student.answer(others))
        each = [[v for k, v in scores.items() if k.endswith(f"/{kind}")] for kind in types]
        return {
            "composition": float(np.mean(list(scores.values()))),
            "worst type": float(min(map(np.mean, each))),
            "retention": lend.retention(student),
        }

    points = []
    for policy in policies:
        items = by_type if policy in TREES else finer(by_type, skills)
        teacher = teacher_in(world, policy, list(dict.fromkeys(item.skill for item in items)))
        episode = Episode(
            lend.clip(world), teacher, items, lend.cells.folder / policy.replace(" ", "_"),
            turns, budget, fit_from=fit_from, seed=lend.seed, measure=measure, say=lend.cells.say,
        )  # fmt: skip
        points += points_of(policy, episode.run()[1], most_lost)
    return points


def points_of(policy: str, turns: Sequence[Turn], most_lost: float) -> list[Point]:
    """What each turn measured, and the composition of the one that is chosen."""
    points = [
        Point(policy, turn.number, metric, value)
        for turn in turns
        for metric, value in turn.measured.items()
    ]
    best = chosen(turns, most_lost).measured["composition"]
    return [*points, Point(policy, turns[-1].number, "composition, chosen turn", best)]
