"""Weak supervision of hard tasks: wrong detailed answers, or right ones to easier parts?

After arXiv 2410.20533. A hard task has a solution and easier subtasks. Two kinds of error are set
exactly, each on its own: how many supervised tasks end wrong (outcome), and how much of them is
wrong (steps, severity). Sets are nested: what is wrong at a rate is wrong at every higher one.

World: claims about two things and their relation are hard, claims about one of them are their
subtasks, and the world knows the truth; experiment() is teach.py's. Text: GSM8K Socratic
(teaching/socratic.py), whose calculator annotations are the steps.

    python -m teaching.weak_to_strong gsm8k_test_socratic.jsonl --hard=0.2 --subtask=0.5 \
        --out=DATA/train.jsonl

writes {prompt, completion} records of whole problems of which a fifth end wrong, and of single
steps of which half are wrong, one form or both mixed; tpu_configs/smollm2_sft.py trains on them.
"""

import argparse
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.glyphs import NOUNS
from data.world import COLOURS, INVERSE, SIZES, Claim, Thing, Wording, World
from errors import UserError, one_line_errors
from files import write_jsonl
from options import Count, Share
from paths import disk_argument
from teaching.answers import ANNOTATION
from teaching.base import Record, accuracy
from teaching.results import Point
from teaching.socratic import Problem, corrupt, plain, read_socratic, written

_ATTEMPTS = 20  # choices of wrong steps that are calculated on, in search of round numbers


def is_wrong(n: int, rate: float, seed: int) -> np.ndarray:
    """Which of n tasks are wrong at an error rate: floor(rate n) of them, nested over rates."""
    order = np.random.default_rng(seed).permutation(n)
    return np.argsort(order) < int(np.floor(round(rate * n, 9)))


def spread(wrong_outcome: bool, decides: int, steps: int, count: int, rng) -> tuple[int, ...]:
    """`count` of a problem's annotations to corrupt, with the one that decides or without.

    Raises:
      UserError: no such choice: a wrong outcome needs a wrong step, a right one a right step.
    """
    others = [i for i in range(steps) if i != decides]
    rest = count - wrong_outcome
    if not 0 <= rest <= len(others):
        raise UserError(f"{count} of {steps} steps cannot be wrong with this outcome")
    picked = rng.permutation(len(others))[:rest]
    return tuple(sorted([others[i] for i in picked] + [decides] * wrong_outcome))


def hard_problems(
    problems: Sequence[Problem],
    outcome_error: float,
    severity: float,
    seed: int,
    *,
    severity_of_right: float = 0.0,
    propagate: bool = False,
) -> list[Problem]:
    """Problems of which a share ends wrong, with a share of the steps wrong in these.

    Args:
      severity: share of a wrong problem's annotations that are wrong, rounded, at least one.
      severity_of_right: the same of those that end right; as far as other steps than the last are.
      propagate: calculate on with what is wrong, see corrupt(); nothing wrong then ends right.

    Raises:
      UserError: severity_of_right of errors that are calculated on, or no round numbers.
    """
    if propagate and severity_of_right:
        raise UserError("a step that is wrong and calculated on does not end right")
    wrong = is_wrong(len(problems), outcome_error, seed)
    made = []
    for i, problem in enumerate(problems):
        rng = np.random.default_rng((seed, 1, i))
        steps = len(problem.annotations)
        count = max(1, round(severity * steps)) if wrong[i] else round(severity_of_right * steps)
        count = count if wrong[i] else min(count, steps - 1)
        made.append(_wrong_at(problem, bool(wrong[i]), count, rng, propagate))
    return made


def _wrong_at(problem: Problem, outcome: bool, count: int, rng, propagate: bool) -> Problem:
    """A problem with `count` wrong steps, chosen anew where these give no round numbers."""
    for _ in range(_ATTEMPTS):
        at = spread(outcome, problem.decides, len(problem.annotations), count, rng)
        try:
            return corrupt(problem, at, rng, propagate) if at else problem
        except ValueError as error:
            unround = str(error)
    raise UserError(f"{unround}: leave it out, or errors that are calculated on")


def hard_records(problems: Sequence[Problem]) -> list[Record]:
    """{skill, prompt, completion} of whole problems, their annotations left out."""
    return [
        {
            "skill": "hard",
            "prompt": f"Question: {problem.question}\nSolution:",
            "completion": " "
            + "\n".join(map(plain, problem.steps))
            + f"\n#### {written(problem.answer)}\n",
        }
        for problem in problems
    ]


def subtask_records(problems: Sequence[Problem], error: float, seed: int) -> list[Record]:
    """{skill, prompt, completion} of single steps, after the right ones before them.

    A share of those that calculate, exactly floor(error n), has a wrong result.
    """
    places = [(i, k) for i, problem in enumerate(problems) for k in range(len(problem.steps))]
    calculates = [
        place for place in places if ANNOTATION.search(problems[place[0]].steps[place[1]])
    ]
    wrong = dict(zip(calculates, is_wrong(len(calculates), error, seed), strict=True))
    records = []
    for i, k in places:
        problem, step = problems[i], problems[i].steps[k]
        if wrong.get((i, k)):
            first = sum(len(ANNOTATION.findall(text)) for text in problem.steps[:k])
            last = first + len(ANNOTATION.findall(step)) - 1
            step = corrupt(problem, [last], np.random.default_rng((seed, 2, i, k))).steps[k]
        done = "".join(f"{plain(text)}\n" for text in problem.steps[:k])
        prompt = f"Question: {problem.question}\n{done}Next: {problem.subquestions[k]}\nAnswer:"
        records.append({"skill": "subtask", "prompt": prompt, "completion": f" {plain(step)}\n"})
    return records


def matched(records: Sequence[Record], words: int, seed: int) -> list[Record]:
    """Records in random order as long as they stay within so many words of completion."""
    order = np.random.default_rng(seed).permutation(len(records))
    lengths = np.array([len(records[i]["completion"].split()) for i in order])
    return [records[i] for i in order[: int(np.searchsorted(np.cumsum(lengths), words, "right"))]]


def mixture(
    problems: Sequence[Problem],
    hard: float | None,
    subtask: float | None,
    severity: float = 0.5,
    severity_of_right: float = 0.0,
    propagate: bool = False,
    words: int | None = None,
    seed: int = 0,
) -> list[Record]:
    """Records of either form, or both in random order, at these error rates.

    Args:
      words: of completions, of each form.
    """
    forms = []
    if hard is not None:
        how = dict(severity_of_right=severity_of_right, propagate=propagate)
        forms.append(hard_records(hard_problems(problems, hard, severity, seed, **how)))
    if subtask is not None:
        forms.append(subtask_records(problems, subtask, seed))
    if not forms:
        raise UserError("give --hard=RATE, --subtask=RATE or both")
    if words is not None:
        forms = [matched(form, words, seed) for form in forms]
    records = [record for form in forms for record in form]
    return [records[i] for i in np.random.default_rng((seed, 4)).permutation(len(records))]


# The world: claims, their atoms, and how many of these are false of a scene.


def atoms(claim: Claim) -> int:
    """How many words of a claim can be true or false: nouns, colours, sizes, counts, relation."""
    said = sum(1 + (t.count > 1) + bool(t.colour) + bool(t.size) for t in claim.things)
    return said + bool(claim.relation)


def wrong_atoms(claim: Claim, scene: Claim) -> int:
    """The fewest of its atoms that must change for the claim to hold; 0 if and only if it does."""

    def differ(said: Thing, shown: Thing) -> int:
        return sum(a not in ("", b) for a, b in zip(said, shown, strict=True))

    if len(claim.things) == 1:
        return min(differ(claim.things[0], thing) for thing in scene.things)
    readings = (scene, _turned(scene))
    return min(
        sum(map(differ, claim.things, each.things)) + (claim.relation not in ("", each.relation))
        for each in readings
    )


def falsified(
    claim: Claim, scene: Claim, count: int, nouns: Sequence[str], rng: np.random.Generator
) -> Claim:
    """A claim with exactly so many wrong atoms.

    Raises:
      UserError: it has not so many atoms that can be wrong.
    """
    slots = [
        (i, field)
        for i, thing in enumerate(claim.things)
        for field in ("noun", "colour", "size")
        if getattr(thing, field)
    ] + ([(-1, "relation")] if claim.relation else [])
    if not 0 <= count <= len(slots):
        raise UserError(f"{count} wrong atoms in a claim of {len(slots)}")
    options = {
        "noun": list(nouns),
        "colour": list(COLOURS),
        "size": list(SIZES),
        "relation": list(INVERSE),
    }
    for _ in range(500):
        things, relation = list(claim.things), claim.relation
        for k in rng.permutation(len(slots))[:count]:
            i, field = slots[k]
            word = options[field][int(rng.integers(len(options[field])))]
            if i < 0:
                relation = word
            else:
                things[i] = things[i]._replace(**{field: word})
        changed = Claim(tuple(things), relation)
        if wrong_atoms(changed, scene) == count:
            return changed
    raise UserError(f"no claim with {count} wrong atoms was found for {scene}")


def world_records(
    world: World,
    scenes: int,
    form: str,
    outcome_error: float,
    severity: float,
    nouns: Sequence[str],
    seed: int,
    told_first: float = 0.8,
) -> list[Record]:
    """Captions of scenes of two things, of which a share is false, to an exact degree.

    Args:
      form: "hard", all of a scene, or "subtask", one thing of it, chosen at random.
      severity: share of a false caption's atoms that are wrong, rounded, at least one.
      nouns: what a noun may be wrong as.
      told_first: share of hard captions that are told from the left or upper thing.

    Returns:
      {skill, scene, caption, wrong, atoms}; images are the world's.
    """
    if form not in ("hard", "subtask"):
        raise UserError(f"form is {form!r}; give 'hard' or 'subtask'")
    pairs = (i for i in range(len(world)) if len(world.scene(i).things) == 2)
    wrong = is_wrong(scenes, outcome_error, seed)
    records = []
    for k, i in enumerate(itertools.islice(pairs, scenes)):
        scene, rng = world.scene(i), np.random.default_rng((seed, 3, k))
        wording = Wording.draw(rng)
        from_first = scene.relation in ("left of", "above")
        told = scene if from_first == (rng.random() < told_first) else _turned(scene)
        claim = told if form == "hard" else Claim(told.things[:: rng.choice((1, -1))][:1], "")
        count = max(1, round(severity * atoms(claim))) if wrong[k] else 0
        said = falsified(claim, scene, count, nouns, rng)
        about = {"scene": i, "caption": wording.say(said), "wrong": count, "atoms": atoms(claim)}
        records.append({"skill": form, **about})
    if len(records) < scenes:
        raise UserError(f"the world has {len(records)} scenes of two things; {scenes} are wanted")
    return records


def _turned(scene: Claim) -> Claim:
    """The same, told from the other thing."""
    return Claim(scene.things[::-1], INVERSE[scene.relation])


def experiment(
    lend,
    scenes: Count = 4800,
    rates: Sequence[Share] = (0.0, 0.5, 1.0),
    severities: Sequence[Share] = (0.15, 0.6),
    tested: Count = 150,
) -> list[Point]:
    """Detailed captions against short ones in the world, over the share of false captions.

    Args:
      lend: see teach.py.
      scenes: of the training set; each form has as many captions.
      rates: of false captions.
      severities: of what is false in a detailed one; a short one has one wrong word.
      tested: test scenes for each split of the classes.

    Returns:
      Over rates: hard, the accuracy on what is said of scenes, the mean over types of falsehood
      and both splits of the classes; retention, see Lend. "before" is the student untaught.
    """
    items = lend.tests(tested)
    world = lend.world(length=20 * scenes, pairs=1.0)
    series = {f"detailed, {severity:g} wrong": ("hard", severity) for severity in severities}
    series["short"] = ("subtask", 0.0)

    def measure(student) -> dict:
        scores = accuracy(student.answer(items))
        return {"hard": float(np.mean(list(scores.values()))), "retention": lend.retention(student)}

    def taught(form: str, severity: float, rate: float) -> dict:
        records = world_records(
            world, scenes, form, rate, severity, NOUNS[world.nouns], seed=lend.seed
        )
        return measure(lend.clip(world).fit(records, lend.seed))

    before = lend.cells.once("before", lambda: measure(lend.clip(world)))
    points = [
        Point("before", rate, name, value) for rate in rates for name, value in before.items()
    ]
    for name, (form, severity) in series.items():
        for rate in rates:
            # Without errors there is nothing to be severe.
            first = next(iter(series)) if form == "hard" and not rate else name
            cell = f"{first.replace(', ', '_').replace(' ', '_')}_{rate:g}"
            scores = lend.cells.once(cell, functools.partial(taught, form, severity, rate))
            points += [Point(name, rate, metric, value) for metric, value in scores.items()]
    return points


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


@one_line_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    share = dict(type=_share, metavar="SHARE")
    parser.add_argument("problems", type=disk_argument, help="json lines of GSM8K Socratic")
    parser.add_argument("--hard", **share, help="of whole problems that end wrong")
    parser.add_argument("--subtask", **share, help="of steps that are wrong")
    parser.add_argument(
        "--severity", **share, default=0.5, help="of the steps, where it ends wrong"
    )
    parser.add_argument("--severity-of-right", **share, default=0.0, help="where it ends right")
    parser.add_argument("--propagate", action="store_true", help="calculate on with what is wrong")
    parser.add_argument("--words", type=int, help="of completions, of each form: equal budgets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=disk_argument, required=True, help="a json lines file")
    options = vars(parser.parse_args(arguments))
    problems, left_out = read_socratic(options.pop("problems"))
    out = Path(options.pop("out"))
    records = mixture(problems, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(out, records)
    words = sum(len(record["completion"].split()) for record in records)
    print(f"in {out}: {len(records)} records, {words} words, of {len(problems)} problems")
    print("\n".join(f"left out: {count} problems, {why}" for why, count in left_out.items()))


if __name__ == "__main__":
    main()
