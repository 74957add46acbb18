"""Which explanations are worth giving: a teacher that simulates its student (arXiv 2306.09299).

The utility of an explanation is c_post - c_pre, the teacher's simulation of the student's
probability of the right answer with and without it; the items of largest utility get theirs within
a budget. Each item is predicted once with help and once without: the budget only chooses.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from errors import UserError
from files import read_records
from language.base import LanguageModel
from options import Count, Share, check_known
from teaching import tasks
from teaching.base import Item, check_enough, rng_of
from teaching.budget import BUDGETS, curve
from teaching.mental_model import VARIANTS, MentalModel, Observed, confidence
from teaching.results import Point, data_of
from teaching.students import LanguageStudent
from teaching.tasks.explained import ExplainedTask

# Who explains, and by which examples: see explained().
EXPLAINS = ("human", "blind", "rationalise", "useful", "misleading")
# Each ranking by what it ranks, always the largest first.
RANKINGS: dict[str, Callable[["Predictions"], np.ndarray]] = {
    "random": lambda p: p.random,
    "utility": lambda p: p.simulated_post - p.simulated_pre,
    "pre": lambda p: -p.simulated_pre,
    "post": lambda p: p.simulated_post,
    "student utility": lambda p: p.student_post - p.student_pre,
    "student pre": lambda p: -p.student_pre,
    "student post": lambda p: p.student_post,
    # The released code sorts by the least class probability and so takes the most certain first.
    "student uncertainty": lambda p: -p.student_certainty,
    "teacher confidence": lambda p: p.teacher,
    "oracle": lambda p: p.after - p.before,
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Of each test item, float arrays [n].

    Attributes:
      before, after: whether the student is right (1 or 0), alone and with the explanation.
      unread_before, unread_after: whether its answer could not be read, which is wrong.
      simulated_pre, simulated_post: the teacher's simulation of its probability to be.
      student_pre, student_post: the student's own probability of the right answer.
      student_certainty: the largest of its probabilities, alone.
      teacher: the teacher's probability of the right answer.
      random: a random order.
    """

    before: np.ndarray
    after: np.ndarray
    unread_before: np.ndarray
    unread_after: np.ndarray
    simulated_pre: np.ndarray
    simulated_post: np.ndarray
    student_pre: np.ndarray
    student_post: np.ndarray
    student_certainty: np.ndarray
    teacher: np.ndarray
    random: np.ndarray


def curves(
    predictions: Predictions, budgets: Sequence[float] = BUDGETS, largest: bool = True
) -> dict[str, list[float]]:
    """Accuracy over budgets for each ranking; a misleading teacher takes the smallest first."""
    before, after = predictions.before, predictions.after
    return {
        name: curve(ranked(predictions), before, after, budgets, largest)
        for name, ranked in RANKINGS.items()
    }


def observe(student: LanguageStudent, items: Sequence[Item]) -> list[Observed]:
    """The student on items with a human explanation each."""
    help = {item.key: item.extra["explanation"] for item in items}
    alone, helped = student.answer(items), student.answer(items, help=help)
    return [Observed(*each) for each in zip(items, alone, helped, strict=True)]


def balanced(observed: Sequence[Observed], k: int) -> list[Observed]:
    """k items, as many of each answer that the student gives alone; in their order.

    Raises:
      UserError: it gives too few different answers; says how many there are of each.
    """
    options = observed[0].item.options
    share, rest = divmod(k, len(options))
    if rest:
        raise UserError(f"{k} demonstrations cannot be balanced over {len(options)} answers")
    by_answer = {o: [each for each in observed if each.alone.answer == o] for o in options}
    if short := {option: len(each) for option, each in by_answer.items() if len(each) < share}:
        raise UserError(f"the student's answers are not varied enough: {short}; {share} are needed")
    chosen = [each for option in options for each in by_answer[option][:share]]
    return sorted(chosen, key=observed.index)


def useful(observed: Sequence[Observed], k: int) -> list[Observed]:
    """k items whose explanation turned this student from wrong to right: a ToM teacher's examples.

    Raises:
      UserError: there are fewer.
    """
    turned = [each for each in observed if not each.alone.correct and each.helped.correct]
    if len(turned) < k:
        raise UserError(f"explanations helped on {len(turned)} items; {k} are needed: give more")
    return turned[:k]


def explain(
    model: LanguageModel,
    task: ExplainedTask,
    items: Sequence[Item],
    examples: Sequence[Item],
    rationalise: bool = False,
) -> tuple[dict[str, str], float]:
    """A teacher's explanation of each item, and how many gave the answer away (and were cut).

    Args:
      examples: with the explanations that the teacher is to follow.
      rationalise: the answer first, then "because".
    """
    prompts = []
    for item in items:
        if rationalise:
            blocks = [
                f"{task.question(e)}\nA: The answer is {e.answer} because {e.extra['explanation']}"
                for e in examples
            ]
            end = f"{task.question(item)}\nA: The answer is {item.answer} because"
            prompts.append("\n\n".join([*blocks, end]))
        else:
            prompts.append(task.render(item, examples))
    texts = [c[0].text.strip() for c in model.generate(prompts, max_tokens=100, stop=("\n",))]
    leaks = [task.leaks(text) for text in texts]
    made = {i.key: task.without_answer(text) for i, text in zip(items, texts, strict=True)}
    return made, float(np.mean(leaks))


def predict(
    student: LanguageStudent,
    explanations: Mapping[str, str],
    mind: MentalModel,
    items: Sequence[Item],
    seed: int,
) -> Predictions:
    """Everything that the rankings rank by; each prediction is made once."""
    task = student.task
    alone, helped = student.answer(items), student.answer(items, help=explanations)
    own = [
        task.render(item, student.demos, help=outcome.text.strip().partition("\n")[0])
        for item, outcome in zip(items, alone, strict=True)
    ]
    explained = [task.render(item, student.demos, help=explanations[item.key]) for item in items]
    taught = [
        task.render(item, [e.item for e in mind.examples]) + f" {task.lead}" for item in items
    ]
    pre = confidence(student.model, own, items)
    return Predictions(
        before=np.array([float(o.correct) for o in alone]),
        after=np.array([float(o.correct) for o in helped]),
        unread_before=np.array([float(o.answer is None) for o in alone]),
        unread_after=np.array([float(o.answer is None) for o in helped]),
        simulated_pre=mind.pre(items),
        simulated_post=mind.post(items, explanations),
        student_pre=pre[:, 0],
        student_post=confidence(student.model, explained, items)[:, 0],
        student_certainty=pre[:, 1],
        teacher=confidence(mind.model, taught, items)[:, 0],
        random=rng_of(seed, 0, "random").random(len(items)),
    )


def rounds(
    student: LanguageStudent,
    items: Sequence[Item],
    explained: Sequence[Item],
    utility: Sequence[float],
    sizes: Sequence[int] = (2, 4, 6, 8, 10),
) -> dict[int, float]:
    """Does it generalise: accuracy without help, with the best explained items as demonstrations.

    Args:
      explained: items with the teacher's explanation in extra, and the utility of each. (The
        released code draws them at random.)

    Raises:
      UserError: fewer items were explained than the largest size.
    """
    if len(explained) < max(sizes):
        raise UserError(f"{len(explained)} items are explained; {max(sizes)} are wanted")
    order = np.argsort(-np.asarray(utility, np.float64), kind="stable")
    accuracy = {}
    for size in sizes:
        demos = tuple(explained[i] for i in order[:size])
        outcomes = dataclasses.replace(student, demos=demos).answer(items)
        accuracy[size] = float(np.mean([outcome.correct for outcome in outcomes]))
    return accuracy


def read_harmful(path: Path) -> list[Item]:
    """Items with explanations that lead to the wrong answer, for a misleading teacher to follow."""
    fields = ("qid", "question", "wrong_answer", "harmful_explanation")
    return [
        Item(
            key=f"{row['qid']}/{i}",
            skill="strategyqa",
            question=row["question"],
            answer=row["wrong_answer"],
            options=("yes", "no"),
            extra={"explanation": text},
        )
        for _, row in read_records(path, fields)
        for i, text in enumerate(row["harmful_explanation"])
    ]


def explained_tasks() -> dict[str, type[ExplainedTask]]:
    """Of the files of teaching/tasks/, by name."""
    for module in pkgutil.iter_modules(tasks.__path__):
        importlib.import_module(f"{tasks.__name__}.{module.name}")
    return {task.name: task for task in ExplainedTask.__subclasses__()}


def explained(
    by: str,
    model: LanguageModel,
    student: LanguageStudent,
    items: Sequence[Item],
    seen: Sequence[Observed],
    harmful: Sequence[Item],
) -> tuple[dict[str, str], float]:
    """An explanation of each item, and how many gave the answer away, in the form of one.

    Args:
      by: "human"; else the model, by examples: "blind", the student's own; "rationalise", the same
        with the answer first; "useful", which turned this student from wrong to right;
        "misleading", the harmful ones.
    """
    task, count = student.task, len(student.demos)
    if by == "human":
        told = {item.key: item.extra["explanation"] for item in items}
        return told, float(np.mean([task.leaks(text) for text in told.values()]))
    examples = student.demos
    if by == "useful":
        examples = [each.item for each in useful(seen, count)]
    if by == "misleading":
        examples = harmful[:count]
    return explain(model, task, items, examples, rationalise=by == "rationalise")


def generalised(
    student: LanguageStudent,
    mind: MentalModel,
    items: Sequence[Item],
    pool: Sequence[Item],
    told: Mapping[str, str],
    sizes: Sequence[int],
    seed: int,
) -> dict[str, dict[int, float]]:
    """rounds() of the pool's explained items by utility, and in random order (as released)."""
    explained = [
        dataclasses.replace(item, extra={**item.extra, "explanation": told[item.key]})
        for item in pool
    ]
    orders = {
        "utility": mind.post(pool, told) - mind.pre(pool),
        "random": rng_of(seed, 0, "rounds").random(len(pool)),
    }
    return {name: rounds(student, items, explained, order, sizes) for name, order in orders.items()}


def experiment(
    lend,
    task: str = "strategyqa",
    train: Count = 40,
    tested: Count = 229,
    examples: Count = 4,
    explains: str = "human",
    variant: str = "paper",
    budgets: Sequence[Share] = BUDGETS,
    sizes: Sequence[Count] = (),
) -> list[Point]:
    """Accuracy over budgets for every ranking, of two language models on a task.

    Args:
      lend: see teach.py; its models are teacher and student, its data the task's folder.
      train: items in which the examples are looked for.
      tested: the first so many test items.
      examples: demonstrations of the student and of its mental model.
      explains: see explained(); "misleading" takes the items of least utility first, on strategyqa,
        and as released its examples are the student's own.
      variant: see MentalModel.
      sizes: of several rounds: so many explained train items become the student's demonstrations.

    Returns:
      accuracy over budgets by ranking; after rounds, without help, over sizes; at budgets 0 and 1
      unparsed, the share of answers that could not be read; leaks, of explanations that gave the
      answer away before they were cut.

    Raises:
      UserError: an unknown task, variant or way to explain, no folder of the task's files, or too
        few items there.
    """
    known = explained_tasks()
    check_known("task", task, known)
    check_known("variant", variant, VARIANTS)
    check_known("way that explains", explains, EXPLAINS if task == "strategyqa" else EXPLAINS[:-1])
    folder = data_of(lend, task)
    of_task = known[task](folder)
    splits = {"strategyqa": ("train", "dev"), "ecqa": ("val", "test")}.get(task, ("test", "test"))
    pool, items = (of_task.items(split) for split in splits)
    order = rng_of(lend.seed, 0, "items").permutation(len(pool))
    pool = [pool[i] for i in order if pool[i] not in items[:tested]]
    check_enough(f"test items of {task}", tested, len(items))
    check_enough(f"other items of {task}", examples + train, len(pool))
    check_enough("examples of the train items", examples, train)
    check_enough("explained train items (sizes)", max(sizes, default=0), train)
    harmful = []
    if explains == "misleading" and variant == "paper":
        harmful = read_harmful(folder / "strategyqa_harmful_explanations.json")
        check_enough("harmful examples", examples, len(harmful))
    sampling = {"max_tokens": 100, "stop": ("\n",)}
    model = lend.language("student")
    student = LanguageStudent(model, of_task, tuple(pool[:examples]), sampling=sampling)
    teacher, items = lend.language("teacher"), items[:tested]
    others = pool[examples : examples + train]

    def compute():
        seen = observe(student, others)
        shown = balanced(seen, examples) if items[0].options == ("yes", "no") else seen[:examples]
        mind = MentalModel(teacher, of_task, shown, variant)
        misled = explains == "misleading"
        by = "blind" if misled and variant == "released" else explains
        told, leaks = explained(by, teacher, student, items, seen, harmful)
        predicted = predict(student, told, mind, items, lend.seed)
        unread = [float(u.mean()) for u in (predicted.unread_before, predicted.unread_after)]
        measured = {"curves": curves(predicted, budgets, largest=not misled), "leaks": leaks}
        if sizes:
            told, _ = explained(by, teacher, student, others, seen, harmful)
            after = generalised(student, mind, items, others, told, sizes, lend.seed)
            measured["rounds"] = {name: list(each.values()) for name, each in after.items()}
        return {**measured, "unparsed": unread}

    measured = lend.cells.once(f"{task}_{variant}_{explains}", compute)
    return points_of(measured, budgets, sizes)


def points_of(measured: dict, budgets: Sequence[float], sizes: Sequence[int]) -> list[Point]:
    """What experiment() returns, of what it measured."""
    points = []
    for metric, over, x in (("accuracy", "curves", budgets), ("after rounds", "rounds", sizes)):
        for series, values in measured.get(over, {}).items():
            points += [
                Point(series, *each) for each in zip(x, [metric] * len(x), values, strict=True)
            ]
    unread = zip((0, 1), measured["unparsed"], strict=True)
    points += [Point("all", budget, "unparsed", share) for budget, share in unread]
    return [*points, Point("all", 1, "leaks", measured["leaks"])]
