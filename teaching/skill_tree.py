"""A teacher that explores subskills and exploits them: the tree of DataEnvGym (2410.06215)."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from errors import UserError
from language.base import LanguageModel
from teaching.base import State, Teacher, accuracy
from teaching.budget import allocate
from teaching.engines import Engine, made, read_json_object


class Node(NamedTuple):
    """A subskill: records that it gets each turn, and those that it has had."""

    allocation: int
    data: int


Tree = dict[str, dict[str, Node]]  # skill -> subskill -> Node
Action = dict[str, Any]  # {"explore": [names], "each": n} or {"exploit": {subskill: change}}


def act(tree: Tree, actions: Mapping[str, Action]) -> Tree:
    """The tree after an action for each skill; subskills that an action leaves out stay.

    Raises:
      UserError: an unknown skill or subskill, a name that is taken, or an allocation below 0.
    """
    after = {skill: dict(nodes) for skill, nodes in tree.items()}
    for skill, action in actions.items():
        if skill not in after:
            raise UserError(f"there is no skill {skill!r}; there are: {', '.join(after)}")
        nodes = after[skill]
        for name in action.get("explore", ()):
            if name in nodes:
                raise UserError(f"skill {skill!r} has a subskill {name!r} already")
            nodes[name] = Node(int(action["each"]), 0)
        for name, change in action.get("exploit", {}).items():
            if name not in nodes:
                raise UserError(f"skill {skill!r} has no subskill {name!r}")
            nodes[name] = nodes[name]._replace(allocation=nodes[name].allocation + int(change))
        if low := [name for name, node in nodes.items() if node.allocation < 0]:
            raise UserError(f"skill {skill!r}: the allocation of {low[0]!r} is below 0")
    return after


def tree_of(skills: Sequence[str], state: State) -> Tree:
    """The tree as the turns so far have left it."""
    tree: Tree = {skill: {} for skill in skills}
    for turn in state.history[1:]:
        tree = act(tree, turn.plan["actions"])
        for skill, counts in turn.plan["make"].items():
            for name, count in counts.items():
                node = tree[skill][name]
                tree[skill][name] = node._replace(data=node.data + count)
    return tree


class View(NamedTuple):
    """What a policy of the tree sees of a skill, at a turn from 1."""

    turn: int
    nodes: Mapping[str, Node]
    accuracy: float
    reward: float


def _reset(view: View) -> dict[str, int]:
    return {name: -node.allocation for name, node in view.nodes.items()}


# Policies: (view, propose: how many -> names that are new, rng) -> Action.


def alternating(view: View, propose, rng, new: int = 2, each: int = 30, most: int = 200) -> Action:
    """Explores, and every second turn sets all allocations to 0, which makes no data."""
    if view.turn % 2 == 0 or sum(node.data for node in view.nodes.values()) >= most:
        return {"exploit": _reset(view)}
    return {"explore": propose(new), "each": each}


def fill_balanced(view: View, propose, rng, subskills=5, most: int = 50, per_turn=10) -> Action:
    """Explores until there are enough subskills, then fills each to the same number of records."""
    missing = subskills - len(view.nodes)
    names = propose(missing) if missing > 0 else []
    if names:
        return {"explore": names, "each": per_turn}
    wanted = {n: min(per_turn, max(0, most - node.data)) for n, node in view.nodes.items()}
    return {"exploit": {n: wanted[n] - node.allocation for n, node in view.nodes.items()}}


def random_tree(view: View, propose, rng, new: int = 3, each: int = 10, active: int = 10) -> Action:
    """Explores or exploits by a coin."""
    room = min(new, active - len(view.nodes))
    if not view.nodes or (room > 0 and rng.random() < 0.5):
        return {"explore": propose(int(rng.integers(1, room + 1))), "each": each}
    return {
        "exploit": {n: int(rng.integers(-v.allocation, each + 1)) for n, v in view.nodes.items()}
    }


def threshold(view: View, propose, rng, gain: float = 0.01, more=10, new=5, each=10) -> Action:
    """More of what brought a reward; else new subskills."""
    if view.nodes and view.reward > gain:
        return {"exploit": dict.fromkeys(view.nodes, more)}
    return {"explore": propose(new), "each": each}


TREE_POLICIES = {
    "alternating": alternating,
    "fill balanced": fill_balanced,
    "random": random_tree,
    "threshold": threshold,
}


def ask_policy(model: LanguageModel) -> Callable:
    """A policy by language model: json with the allocation it wants of each subskill.

    A subskill that it leaves out gets 0; an answer that is no such json explores.
    """

    def policy(view: View, propose, rng, most: int = 30, new: int = 2, each: int = 10) -> Action:
        nodes = {name: node._asdict() for name, node in view.nodes.items()}
        prompt = (
            f"A student's accuracy on a skill is {view.accuracy:.2f} after turn {view.turn - 1}, "
            f"a change of {view.reward:+.2f}. Its subskills: {json.dumps(nodes)}\nWrite json: "
            '{"explore": true} for new subskills, or {"allocation": {"subskill": number}} with '
            f"0 to {most} records for each.\n"
        )
        answer = read_json_object(model.generate([prompt], max_tokens=300)[0][0].text) or {}
        wanted = answer.get("allocation")
        if not view.nodes or answer.get("explore") or not isinstance(wanted, dict):
            return {"explore": propose(new), "each": each}
        changes = {}
        for name, node in view.nodes.items():
            number = wanted.get(name, 0)
            number = number if isinstance(number, int | float) and number == number else 0
            changes[name] = int(min(max(number, 0), most)) - node.allocation
        return {"exploit": changes}

    return policy


@dataclasses.dataclass(frozen=True)
class SkillTree(Teacher):
    """Explores subskills and exploits them, skill by skill, within the budget.

    Attributes:
      policy: see TREE_POLICIES, or ask_policy(model).
      propose: (skill, names that are taken, count, rng) -> at most so many new names.
      engine: makes records of "skill/subskill".
    """

    skills: tuple[str, ...]
    policy: Callable = dataclasses.field(repr=False)
    propose: Callable = dataclasses.field(repr=False)
    engine: Engine = dataclasses.field(repr=False)

    def plan(self, state, budget, rng):
        tree, scores = tree_of(self.skills, state), accuracy(state.last.outcomes)
        actions = {}
        for skill in self.skills:
            nodes, reward = tree[skill], state.last.reward[skill]

            def propose(count, skill=skill, nodes=nodes):
                names = self.propose(skill, tuple(nodes), count, rng)
                return list(dict.fromkeys(n for n in names if n not in nodes))[:count]

            view = View(len(state.history), nodes, scores[skill], reward)
            actions[skill] = self.policy(view, propose, rng)
        after = act(tree, actions)
        wanted = {
            (skill, name): node.allocation for skill in after for name, node in after[skill].items()
        }
        total = sum(wanted.values())
        if total > budget:
            wanted = allocate(wanted, budget)
        make: dict[str, dict[str, int]] = {skill: {} for skill in self.skills}
        for (skill, name), count in wanted.items():
            make[skill][name] = count
        return {"actions": actions, "make": make}

    def make(self, plan, rng):
        wanted = {f"{s}/{n}": c for s, names in plan["make"].items() for n, c in names.items()}
        return made(self.engine, wanted, rng)
