"""DataEnvGym in text: a language model writes GSM8K's problems where its student is weak.

The three environments of arXiv 2410.06215 and their controls at equal numbers: errors alone
(open-ended) and the same without them (stateless), a budget spread over skills by error (skill
list) or evenly, a tree of subskills, and training problems as they are (gold), which tell what of a
gain is the form alone.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from language.base import LanguageModel
from options import Count, check_known
from teaching.answers import ANNOTATION
from teaching.base import Episode, Item, Teacher, check_enough, rng_of
from teaching.data_env import Allocation, OpenEnded, Unknown, discover
from teaching.engines import GoldEngine, ProblemEngine
from teaching.results import Point, data_of
from teaching.skill_tree import TREE_POLICIES, SkillTree, ask_policy
from teaching.students import LanguageStudent
from teaching.tasks.gsm8k import GSM8K

ARMS = ("open-ended", "stateless", "skill list", "evenly", "skill tree", "gold")
ASKED = "language model"  # the policy of the tree that asks the teacher
_OPERATIONS = {"+": "adding", "-": "subtracting", "*": "multiplying", "/": "dividing"}


def operation(item: Item) -> str:
    """The skill of a problem of GSM8K by the last operation of its solution's calculations."""
    calculations = ANNOTATION.findall(item.extra["solution"])
    signs = re.findall(r"[-+*/]", "".join(expression for expression, _ in calculations))
    return _OPERATIONS[signs[-1]] if signs else "counting"


def by_asking(model: LanguageModel) -> Callable:
    """propose of a SkillTree: a language model names the subskills, a line each."""

    def propose(skill, taken, count, rng):
        known = "".join(f"- {name}\n" for name in taken)
        prompt = f"Parts of the skill '{skill}' in word problems, a line each:\n{known}-"
        seed = int(rng.integers(2**31))
        answer = model.generate([prompt], temperature=0.7, max_tokens=60, seed=seed)[0][0].text
        names = (re.sub(r"^[\W\d]+|\W+$", "", line) for line in answer.split("\n"))
        return [name.lower() for name in names if name][:count]

    return propose


def teacher_of(
    arm: str, model: LanguageModel, task: GSM8K, training: Sequence[Item], policy: str
) -> Teacher:
    """The teacher of an arm.

    Args:
      training: items to show, and the material of "gold"; none that the student is tested on.
      policy: of the skill tree: of TREE_POLICIES, or ASKED.
    """
    if arm in ("open-ended", "stateless"):
        return OpenEnded(model, task, tuple(training), stateless=arm == "stateless")
    skills = tuple(dict.fromkeys(item.skill for item in training))
    engine = ProblemEngine(model, task, training)
    if arm == "skill tree":
        act = ask_policy(model) if policy == ASKED else TREE_POLICIES[policy]
        return SkillTree(skills, act, by_asking(model), engine)
    if arm == "gold":
        engine = GoldEngine(training)
    return Allocation(skills, "by error" if arm == "skill list" else "uniform", engine)


def experiment(
    lend,
    arms: Sequence[str] = ARMS,
    turns: Count = 2,
    budget: Count = 8,
    training: Count = 60,
    looked_at: Count = 40,
    tested: Count = 100,
    skills: Literal["operations", "discovered"] = "operations",
    policy: str = "alternating",
    fit_from: Literal["base", "last"] = "base",
    drop_known: bool = False,
) -> list[Point]:
    """What a teacher's problems are worth to a student that learns in context, on GSM8K.

    Args:
      lend: see teach.py; its models are teacher and student, its data the folder of GSM8K.
      budget: problems a turn.
      training, looked_at, tested: problems to show, that the teacher sees answered, and that are
        reported; no two of them are one.
      skills: the last operation of a solution, or what the teacher discovers.
      policy: of the skill tree.
      fit_from: see Episode.
      drop_known: leave out problems that the student solves before it is taught.

    Returns:
      Over turns: accuracy, unparsed (the share of answers that could not be read) and records, so
      far.

    Raises:
      UserError: an unknown arm or policy, no folder of files, or too few problems there.
    """
    for arm in arms:
        check_known("arm", arm, ARMS)
    check_known("policy", policy, (*TREE_POLICIES, ASKED))
    task = GSM8K(data_of(lend, "gsm8k"))
    items = task.items("test")
    wanted = training + looked_at + tested
    check_enough("problems to show, look at and test", wanted, len(items))
    order = rng_of(lend.seed, 0, "items").permutation(len(items))
    items = [items[i] for i in order[:wanted]]
    student, teacher = lend.language("student"), lend.language("teacher")
    names = {item.key: operation(item) for item in items}
    if skills == "discovered":
        names = lend.cells.once("skills", lambda: discover(teacher, items[: training + looked_at]))
    items = [dataclasses.replace(i, skill=names.get(i.key, "")) for i in items]
    shown, seen = items[:training], items[training : training + looked_at]
    # A skill is one that the teacher sees the student at, and has something to show of.
    both = {item.skill for item in shown} & {item.skill for item in seen}
    shown, seen = ([item for item in part if item.skill in both] for part in (shown, seen))
    check_enough("skill that is in both parts", 1, len(both))
    sampling = {"max_tokens": 100, "stop": ("\n",)}
    start = LanguageStudent(student, task, sampling=sampling)

    def measure(student):
        outcomes = student.answer(items[training + looked_at :])
        return {
            "accuracy": float(np.mean([o.correct for o in outcomes])),
            "unparsed": float(np.mean([o.answer is None for o in outcomes])),
        }

    points = []
    for arm in arms:
        by = teacher_of(arm, teacher, task, shown, policy)
        episode = Episode(
            start, Unknown(by, start) if drop_known else by, seen,
            lend.cells.folder / arm.replace(" ", "_"), turns, budget,
            fit_from=fit_from, seed=lend.seed, measure=measure, say=lend.cells.say,
        )  # fmt: skip
        for turn in episode.run()[1]:
            about = {**turn.measured, "records": turn.spent["records"]}
            points += [Point(arm, turn.number, metric, value) for metric, value in about.items()]
    return points
