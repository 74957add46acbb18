"""Theory of mind: planted students and mental models, rankings over budgets, balance and leaks."""

import dataclasses
import re
import types
import zlib

import numpy as np
import pytest
from scipy.stats import spearmanr

from language import scripted
from teaching import theory_of_mind as tom
from teaching.base import Item, Outcome
from teaching.results import Cells
from teaching.students import LanguageStudent
from teaching.tasks.ecqa import ECQA
from teaching.tasks.strategyqa import StrategyQA
from tests.teaching.planted import Lent

TASK = StrategyQA("unused")
N = 40


def item(i):
    """Item i: the student is right alone with ease a, and with its explanation with ease b."""
    rng = np.random.default_rng(i)
    ease, help = rng.normal(), rng.normal() + 0.5
    answer = "yes" if i % 2 else "no"
    text = f"Is {i} so, with ease {ease:.4f}?"
    explanation = f"It helps by {help:.4f}."
    return Item(str(i), "s", text, answer, ("yes", "no"), extra={"explanation": explanation})


ITEMS = [item(i) for i in range(N)]
TOLD = {i.key: i.extra["explanation"] for i in ITEMS}


def logit(prompt):
    """The planted student's logit of being right, by what stands in the last block."""
    block = prompt.rpartition("Q: ")[2]
    ease = float(re.search(r"ease (-?[\d.]+)\?", block)[1])
    help = re.search(r"helps by (-?\d+\.\d+)", block)
    return ease + (float(help[1]) if help else 0.0)


def right_answer(prompt):
    number = int(re.search(r"Is (\d+) so", prompt.rpartition("Q: ")[2])[1])
    return "yes" if number % 2 else "no"


def score(prompt, option):
    sign = 1 if option.strip() == right_answer(prompt) else -1
    return -np.log1p(np.exp(-sign * logit(prompt)))


def answer(prompt, rng):
    right = right_answer(prompt)
    said = right if logit(prompt) > 0 else {"yes": "no", "no": "yes"}[right]
    if prompt.endswith("So the answer is"):
        return f" {said}"
    return f" I think. So the answer is {said}"


MODEL = scripted.open(answer, score)
STUDENT = LanguageStudent(MODEL, TASK)


def predictions(model=MODEL, told=TOLD):
    mind = tom.MentalModel(model, TASK, tom.observe(STUDENT, ITEMS[:4]))
    return tom.predict(STUDENT, told, mind, ITEMS, seed=0)


@pytest.fixture(scope="module")
def found():
    return predictions()


def test_a_perfect_mental_model_knows_the_student(found):
    """It simulates the planted student itself: its utility is the true one, rank for rank."""
    true_pre = np.array([1 / (1 + np.exp(-logit(f"Q: {i.question}"))) for i in ITEMS])
    np.testing.assert_allclose(found.student_pre, true_pre, rtol=1e-9)
    utility = tom.RANKINGS["utility"](found)
    assert spearmanr(utility, found.student_post - found.student_pre).statistic == pytest.approx(1)
    np.testing.assert_allclose(utility, tom.RANKINGS["student utility"](found))
    assert (found.before == (true_pre > 0.5)).all()


def test_a_mental_model_that_shuffles_is_at_chance():
    rng = np.random.default_rng(0)
    noise = scripted.open(answer, lambda prompt, option: rng.normal())
    utility = tom.RANKINGS["utility"](predictions(noise))
    true = tom.RANKINGS["student utility"](predictions())
    assert abs(spearmanr(utility, true).statistic) < 0.35


TOPICS = ("whales", "cheese", "chess", "trains")


def reads_its_demonstrations(prompt, option):
    """A mental model: right with 90 % on a topic if the student was in the demonstrations on it."""
    *shown, last = prompt.split("Q: ")[1:]
    topic = next(t for t in TOPICS if t in last)
    said = [re.findall(r"(?:Correct Answer:|answer is) (yes|no)", b) for b in shown if topic in b]
    right = np.mean([answers[0] == answers[-1] for answers in said]) > 0.5 if said else False
    answer = re.search(r"Correct Answer: (yes|no)", last)[1]
    return np.log(0.9 if right == (option.strip() == answer) else 0.1)


def test_a_mental_model_learns_from_its_demonstrations_alone():
    """A student who knows two of four topics; demonstrations of shuffled outcomes teach nothing."""
    items = [
        Item(str(i), "s", f"About {TOPICS[i % 4]}, {i}?", "yes", ("yes", "no"),
             extra={"explanation": "Facts."})
        for i in range(40)
    ]  # fmt: skip
    knows = np.array([i % 4 < 2 for i in range(40)])
    model = scripted.open(lambda prompt, rng: " Hm.", reads_its_demonstrations)

    def simulated(outcomes):
        shown = [
            tom.Observed(item, Outcome(item, said, said == "yes", text="Hm."), None)
            for item, right in zip(items[:12], outcomes, strict=True)
            for said in [{True: "yes", False: "no"}[bool(right)]]
        ]
        return tom.MentalModel(model, TASK, shown).pre(items[12:])

    true = np.where(knows[12:], 0.9, 0.1)
    np.testing.assert_allclose(simulated(knows[:12]), true)
    assert spearmanr(simulated(knows[:12]), true).statistic == pytest.approx(1)
    rng, correlations = np.random.default_rng(0), []
    for _ in range(200):
        guesses = simulated(rng.permutation(knows[:12]))
        if len(set(guesses)) > 1:
            correlations.append(spearmanr(guesses, true).statistic)
    error = np.std(correlations) / np.sqrt(len(correlations))
    assert abs(np.mean(correlations)) < 4 * error and len(correlations) > 100


def test_all_rankings_agree_at_both_ends_and_the_oracle_is_above(found):
    curves = tom.curves(found)
    assert len(curves) == 10
    ends = {(round(c[0], 9), round(c[-1], 9)) for c in curves.values()}
    assert ends == {(round(found.before.mean(), 9), round(found.after.mean(), 9))}
    oracle = np.array(curves["oracle"])
    assert all((oracle >= np.array(c) - 1e-12).all() for c in curves.values())
    assert oracle.max() > oracle[-1]  # some explanations harm this student
    assert np.mean(curves["utility"]) > np.mean(curves["random"])


def test_a_misleading_teacher_is_the_mirror_image(found):
    misled = tom.curves(found, largest=False)
    for name, values in tom.curves(found).items():
        if name not in ("oracle",):  # ties go to the earlier item both ways
            mirrored = values[0] + values[-1] - np.array(values)[::-1]
            np.testing.assert_allclose(misled[name], mirrored)


def test_least_confidence_takes_the_least_certain_first(found):
    """The released code sorts by the least class probability: the most certain came first."""
    certainty = found.student_certainty
    assert (certainty >= 0.5).all()
    first = np.argmax(tom.RANKINGS["student uncertainty"](found))
    assert certainty[first] == certainty.min()


def test_examples_are_balanced_over_what_the_student_says():
    seen = tom.observe(STUDENT, ITEMS)
    chosen = tom.balanced(seen, 4)
    assert [e.alone.answer for e in chosen].count("yes") == 2
    assert [seen.index(e) for e in chosen] == sorted(seen.index(e) for e in chosen)
    yes = [e for e in seen if e.alone.answer == "yes"]
    with pytest.raises(ValueError, match="not varied enough: {'no': 0}; 2 are needed"):
        tom.balanced(yes, 4)
    with pytest.raises(ValueError, match="5 demonstrations cannot be balanced"):
        tom.balanced(seen, 5)


def test_useful_examples_turned_this_student_from_wrong_to_right():
    seen = tom.observe(STUDENT, ITEMS)
    chosen = tom.useful(seen, 3)
    assert all(not e.alone.correct and e.helped.correct for e in chosen)
    with pytest.raises(ValueError, match="explanations helped on 0 items; 1 are needed"):
        tom.useful([e for e in seen if e.alone.correct], 1)


def test_what_a_mental_model_is_shown():
    """Paper: the student's own explanation; released: its answer, and in ECQA no right answer."""
    shown = tom.observe(STUDENT, ITEMS[:2])
    paper, released = (tom.MentalModel(MODEL, TASK, shown, v) for v in tom.VARIANTS)
    said = shown[0].alone.answer
    pre = paper._prompt(ITEMS[5])
    assert f"AI Predicted Answer: I think. So the answer is {said}\n" in pre
    assert f"AI Predicted Answer: {said}\n" in released._prompt(ITEMS[5])
    assert pre.endswith("AI Predicted Answer:") and pre.count("Correct Answer:") == 3
    post = paper._prompt(ITEMS[5], TOLD)
    assert f"{TOLD['0']} So the answer is {shown[0].helped.answer}\n" in post
    ecqa = ECQA("unused")
    choice = Item("1", "ecqa", "Q?", "1", tuple("12345"), extra={"choices": list("abcde")})
    for variant, count in (("paper", 1), ("released", 0)):
        mind = tom.MentalModel(MODEL, ecqa, [], variant)
        assert mind._prompt(choice).count("Correct Answer:") == count
        assert mind._prompt(choice, {}).count("Correct Answer:") == 1
    with pytest.raises(ValueError, match="unknown variant 'code'"):
        tom.MentalModel(MODEL, TASK, [], "code")


def test_confidence_of_free_answers_is_per_token():
    free = [dataclasses.replace(ITEMS[0], options=(), answer="1 2 3")]
    model = scripted.open(scores=lambda prompt, answer: -6.0)
    np.testing.assert_allclose(tom.confidence(model, ["p"], free), np.exp(-2) * np.ones((1, 2)))
    with pytest.raises(ValueError, match="cannot choices"):
        tom.confidence(scripted.open(answer), ["p"], ITEMS[:1])


def test_explanations_are_cut_where_they_give_the_answer():
    def talks(prompt, rng):
        return " It is big. So the answer is yes." if "3 so" in prompt[-60:] else " It is old.\nQ:"

    told, leaks = tom.explain(scripted.open(talks), TASK, ITEMS[:4], ITEMS[5:7])
    assert told["3"] == "It is big." and told["0"] == "It is old."
    assert leaks == 0.25
    prompts = []
    model = scripted.open(lambda prompt, rng: prompts.append(prompt) or " it is.")
    tom.explain(model, TASK, ITEMS[:1], ITEMS[5:6], rationalise=True)
    assert prompts[0].endswith("A: The answer is no because")


def test_the_best_explained_items_become_demonstrations():
    seen = []

    def parrot(prompt, rng):
        seen.append(prompt)
        return " So the answer is yes"

    student = LanguageStudent(scripted.open(parrot), TASK)
    explained = ITEMS[10:14]
    found = tom.rounds(student, ITEMS[:2], explained, [0.1, 0.9, 0.5, 0.3], sizes=(1, 2))
    assert found == {1: 0.5, 2: 0.5}
    assert explained[1].question in seen[0] and explained[2].question not in seen[0]
    assert seen[2].index(explained[1].question) < seen[2].index(explained[2].question)
    with pytest.raises(ValueError, match="4 items are explained; 10 are wanted"):
        tom.rounds(student, ITEMS[:2], explained, [0, 1, 2, 3])


def test_harmful_explanations(shared):
    items = tom.read_harmful(shared / "data/teaching/tom/strategyqa_harmful_explanations.json")
    assert len(items) == 24 and items[0].answer == "no"
    assert items[0].extra["explanation"].startswith("Athena was the Greek goddess of horses")


def test_experiment_end_to_end(shared, tmp_path):
    """Two scripted models on StrategyQA; a restart asks nothing again.

    Handed human facts, the student mumbles where a question has "the" in it; alone, also where it
    has a "y" in it.
    """
    calls, folder = [], shared / "data/teaching/tom"

    def mumbles(question, helped):
        return "the" in question or (not helped and "y" in question)

    def language(name):
        def says(prompt, rng):
            calls.append(name)
            last = prompt.rpartition("Q: ")[2].partition("\n")[0]
            # Asked again after " Well.", it has no facts either.
            helped = prompt.endswith(" So the answer is") and "A: Well." not in prompt
            if name == "student" and mumbles(last, helped):
                return " Well."
            said = "yes" if len(last) % 2 else "no"
            return f" {said}" if helped else f" Well. So the answer is {said}"

        return scripted.open(says, lambda prompt, option: float(len(prompt) % 7 + len(option)))

    lent = Lent(language, folder, Cells(tmp_path))
    points = tom.experiment(lent, tested=12)
    budgets = [p.x for p in points if p.series == "utility"]
    assert budgets == list(tom.BUDGETS)
    assert {p.metric for p in points} == {"accuracy", "unparsed", "leaks"}
    items = StrategyQA(folder).items("dev")[:12]
    for x in (0, 1):
        (unparsed,) = [p.value for p in points if (p.metric, p.x) == ("unparsed", x)]
        assert unparsed == np.mean([mumbles(item.question, helped=x == 1) for item in items])
    assert [p.value for p in points if p.metric == "leaks"] == [0.0]
    asked = len(calls)
    assert tom.experiment(lent, tested=12) == points and len(calls) == asked


@pytest.fixture
def lent(shared, tmp_path):
    """Models for StrategyQA that differ from question to question; and what the teacher is asked.

    Alone the student says no to half of what it is asked, with an explanation yes to all.
    """
    prompts = []

    def student(prompt, rng):
        if prompt.endswith(" So the answer is"):
            return " yes"
        even = len(prompt.rpartition("Q: ")[2]) % 2
        return f" Well. So the answer is {'yes' if even else 'no'}"

    def teacher(prompt, rng):
        prompts.append(prompt)
        return f" Facts {len(prompt)}."

    def drawn(prompt, option):
        return zlib.crc32(f"{prompt}{option}".encode()) / 2**30

    models = {"student": scripted.open(student, drawn), "teacher": scripted.open(teacher, drawn)}
    data = shared / "data/teaching/tom"
    return Lent(models.__getitem__, data, Cells(tmp_path)), prompts


def asked_to_explain(prompts):
    return [prompt for prompt in prompts if not prompt.startswith("Foresee")]


@pytest.mark.parametrize("explains", tom.EXPLAINS)
def test_who_explains_by_which_examples(lent, explains):
    lent, prompts = lent
    points = tom.experiment(lent, tested=6, explains=explains)
    asked = asked_to_explain(prompts)
    assert len(asked) == (0 if explains == "human" else 6)
    harmful = [item.extra["explanation"] for item in tom.read_harmful(
        lent.data / "strategyqa_harmful_explanations.json")]  # fmt: skip
    misled = [sum(text in prompt for text in harmful) for prompt in asked]
    assert set(misled) == {4 if explains == "misleading" else 0} or not asked
    for prompt in asked:
        assert prompt.endswith(" because") == (explains == "rationalise")
        if explains == "useful":  # what this student gets wrong alone and right with help
            shown = re.findall(r"Q: (.*)\nA: .* So the answer is (\w+)\n", prompt)
            assert len(shown) == 4 and {answer for _, answer in shown} == {"yes"}
            assert not any(len(f"{question}\nA:") % 2 for question, _ in shown)
    assert {p.metric for p in points} == {"accuracy", "unparsed", "leaks"}


def test_a_misleading_teacher_as_released_only_ranks_the_other_way(lent):
    lent, prompts = lent
    options = dict(tested=12, variant="released", budgets=(0, 0.25, 0.5, 0.75, 1))
    blind = tom.experiment(lent, explains="blind", **options)
    asked = list(asked_to_explain(prompts))
    prompts.clear()
    misled = tom.experiment(lent, explains="misleading", **options)
    assert asked_to_explain(prompts) == asked

    def curve(points, ranking):
        return np.array([p.value for p in points if p.series == ranking])

    for ranking in set(tom.RANKINGS) - {"oracle"}:  # ties go to the earlier item both ways
        values = curve(blind, ranking)
        np.testing.assert_allclose(curve(misled, ranking), values[0] + values[-1] - values[::-1])
    assert any((curve(blind, r) != curve(misled, r)).any() for r in tom.RANKINGS)
    with pytest.raises(ValueError, match="unknown way that explains 'misleading'"):
        tom.experiment(lent, task="ecqa", explains="misleading")


@pytest.mark.parametrize(("task", "answer"), [("ecqa", "2"), ("gsm8k", "18")])
def test_other_tasks(shared, tmp_path, task, answer):
    """A student who always says one thing, once with help and, asked again, once without."""

    def says(prompt, rng):
        return f" {answer}" if prompt.endswith(" is") else " Hm."

    def score(prompt, option):
        return -1.0 - zlib.crc32(f"{prompt}{option}".encode()) / 2**32

    model, folder = scripted.open(says, score), shared / "data/teaching/tom"
    points = tom.experiment(Lent(lambda name: model, folder, Cells(tmp_path)), task, tested=30)
    items = tom.explained_tasks()[task](folder).items("test")[:30]
    right = np.mean([item.answer == answer for item in items])
    assert {p.series for p in points} == {*tom.RANKINGS, "all"}
    assert {p.value for p in points if p.metric == "accuracy"} == {right} and right > 0
    assert [p.value for p in points if p.metric == "unparsed"] == [0, 0]


def test_several_rounds(lent):
    """The best explained items become demonstrations: by utility, and in random order."""
    lent, _ = lent
    points = [p for p in tom.experiment(lent, tested=4, sizes=(2, 4)) if p.metric == "after rounds"]
    assert [(p.series, p.x) for p in points] == [
        ("utility", 2), ("utility", 4), ("random", 2), ("random", 4),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"50 explained train items \(sizes\) are wanted"):
        tom.experiment(lent, tested=4, sizes=(50,))


def test_a_task_without_its_files_is_one_line():
    with pytest.raises(ValueError, match="strategyqa needs its files: give their folder, --config"):
        tom.experiment(types.SimpleNamespace(data=None))
