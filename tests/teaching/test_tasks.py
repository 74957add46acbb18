"""Tasks: their files, their parsers on gold answers and on what models write."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from errors import UserError
from teaching import mathdial
from teaching.answers import boxed, equivalent, normalise, read_answer, value
from teaching.tasks.captions import Captions
from teaching.tasks.dialogue import Tutoring
from teaching.tasks.ecqa import ECQA
from teaching.tasks.gsm8k import GSM8K
from teaching.tasks.liar import Liar
from teaching.tasks.math import Math
from teaching.tasks.strategyqa import StrategyQA
from teaching.tasks.world import Scenes


@pytest.fixture(scope="module")
def data(shared):
    return shared / "data/teaching"


def test_strategyqa(data):
    task = StrategyQA(data / "tom")
    items = task.items("dev")
    assert len(items) == 229 and len(task.items("train")) == 2061
    assert {item.answer for item in items} == {"yes", "no"}
    first, second = items[:2]
    prompt = task.render(second, [first])
    assert prompt.startswith(f"Q: {first.question}\nA: Albany, GA has around 75,000 people")
    assert f"So the answer is {first.answer}\n\nQ: {second.question}\nA:" in prompt
    handed = task.render(second, [], "It is so. So the answer is yes.")
    assert handed.endswith("A: It is so. So the answer is")
    # Human explanations do not give the answer in the form of one.
    assert not any(task.leaks(item.extra["explanation"]) for item in items)


@pytest.mark.parametrize(
    ("text", "help", "answer"),
    [
        (" It is warm. So the answer is yes\n\nQ: no", None, "yes"),
        (" It is warm. So the answer is No.", None, "no"),
        (" It is warm, no", None, "no"),
        (" It is warm.", None, None),
        ("", None, None),
        (" yes, because no", "It is warm.", "yes"),
        ("\nno", "", "no"),
        (" probably yes", "It is warm.", None),
        (" nothing", "It is warm.", None),
    ],
)
def test_answers_of_strategyqa(data, text, help, answer):
    task = StrategyQA(data / "tom")
    item = task.items("dev")[0]
    assert task.parse(text, item, help) == answer


@pytest.mark.parametrize(
    ("explanation", "without", "leaks"),
    [
        ("Cats purr. So the answer is yes.", "Cats purr.", True),
        ("Cats purr. Therefore, the correct answer is no", "Cats purr.", True),
        ("The answer is yes. Cats purr.", "", True),
        ("Cats purr. So the correct choice is 2.", "Cats purr.", True),
        ("2 * 3 = 6\n#### 6", "2 * 3 = 6", True),
        ("Nobody knows the answer. Cats answer to so many names.", None, False),
    ],
)
def test_answers_do_not_leak_through_explanations(data, explanation, without, leaks):
    """The released code cuts at the last full stop: "So the answer is yes." keeps its answer."""
    task = StrategyQA(data / "tom")
    assert task.leaks(explanation) == leaks
    assert task.without_answer(explanation) == (explanation if without is None else without)


def test_an_unread_answer_is_asked_for_again(data):
    task = StrategyQA(data / "tom")
    item = task.items("dev")[0]
    prompt, help = task.again(item, [], " It is big. It is old. So the ans")
    assert help == "It is big. It is old."
    assert prompt.endswith("A: It is big. It is old. So the answer is")
    assert task.again(item, [], " no full stop")[1] == "no full stop"
    assert task.again(item, [], "")[0].endswith("A: So the answer is")


def test_ecqa(data):
    task = ECQA(data / "tom")
    items = task.items("test")
    assert len(items) == 2194 and len(task.items("val")) == 1090
    item = items[0]
    assert item.extra["choices"][int(item.answer) - 1] == "have knowledge"
    assert "Choice 3: have knowledge\nChoice 4:" in task.question(item)
    for text, answer in (
        ("Some. So the correct choice is 3", "3"),
        ("Some. So the correct choice is have knowledge.", "3"),
        ("Some. So the correct choice is Choice 4: take charge.", "4"),
        ("Somebody has 2 of them", None),
        ("Some. So the correct choice is knowledge of worrying", None),
        ("The boss may take charge", "5"),  # the first that stands there, as the paper falls back
    ):
        assert task.parse(text, item) == answer, text
    assert task.parse(" 5.", item, "An explanation.") == "5"


def test_gsm8k(data):
    task = GSM8K(data / "tom")
    items = task.items("test")
    assert len(items) == 1319
    # The answer in its own form, and in an annotated solution's last line.
    for item in items:
        assert task.grade(item.answer, item)
        assert "<<" not in item.extra["explanation"]
    item = items[0]
    assert task.handed(item.extra["explanation"]).endswith("duck eggs a day.")
    for text, answer, right in (
        ("She makes 9 * 2 = $18. So the answer is $18.00.", "18.00", True),
        ("So the answer is 1,800", "1800", False),
        ("So the answer is -18", "-18", False),
        ("nothing", None, False),
    ):
        assert task.parse(text, item) == answer
        assert (answer is not None and task.grade(answer, item)) == right
    assert sum("," in i.answer for i in items) == 0


def test_every_gold_answer_of_math_is_read_in_every_form(data):
    """724 answers: of the 181 problems and of their 543 exams."""
    items = Math(data / "lbt/math181.json").items()
    assert len(items) == 181
    answers = [i.answer for i in items]
    answers += [exam["answer"] for i in items for exam in i.extra["exams"]]
    assert len(answers) == 724
    for answer in answers:
        for form in (
            f"Thus the answer is $\\boxed{{{answer}}}$.",
            f"[[Final Answer]]: ${answer}$\n\n[[Question]]",
            f"Final Answer: The final answer is ${answer}$. I hope it is correct.",
            f"Therefore, the final answer is ${answer}$",
            f"[[Final Answer]]: $\\boxed{{{answer}}}$.",
        ):
            assert equivalent(read_answer(form) or "", answer), form
        assert normalise(normalise(answer)) == normalise(answer)
    for item in items:
        assert equivalent(boxed(item.extra["solution"]), item.answer)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (".25", r"\frac14", True),
        (r"\dfrac{1}{2}", "0.5", True),
        (r"-\frac{3}{4}", "-3/4", True),
        ("1,000", "1000", True),
        ("12,345,678", "12345678", True),
        (r"50\%", "50", True),
        (r"90^\circ", "90", True),
        (r"x = 5", "5", True),
        (r"\text{(B)}", "(B)", True),
        ("issue", "is", False),
        ("(1,2)", "(12)", False),
        ("1,2", "12", False),
        ("1", "-1", False),
        (r"\frac{1}{0}", "1", False),
        ("sets", "set", False),
        (r"\sqrt2", r"\sqrt{2}", True),
    ],
)
def test_one_value_in_several_spellings(a, b, same):
    assert equivalent(a, b) == same == equivalent(b, a)


def test_what_is_no_answer():
    assert read_answer("I do not know") is None and boxed(r"\boxed{1") is None
    assert boxed(r"\boxed{\frac{1}{2}} or \boxed{3}") == "3"
    assert read_answer("[[Final Answer]]:\n") is None
    assert value("x") is None


def test_exams_that_tell_nothing(data):
    """27 of 181 problems have exams of equal answers, 5 an exam with the problem's own answer."""
    items = Math(data / "lbt/math181.json").items()
    alike = [i for i in items if len({e["answer"] for e in i.extra["exams"]}) < 3]
    own = [i for i in items if any(equivalent(e["answer"], i.answer) for e in i.extra["exams"])]
    assert len(alike) == 27
    assert len(own) == 5


def test_liar(data):
    task = Liar(data / "lbt")
    items = task.items("test")
    lines = (data / "lbt/liar_test.jsonl").read_text().strip().split("\n")
    labels = [json.loads(line)["label"] for line in lines]
    assert [item.answer == "yes" for item in items] == [bool(label) for label in labels]
    prompt = task.render(items[0], items[1:3])
    assert prompt.count("Answer:") == 3 and prompt.endswith("Answer:")
    assert task.parse(" Yes, it is", items[0]) == "yes" and task.parse("Nope", items[0]) is None


def test_captions():
    """Of each photograph and type the first caption that it applies to, in the seed's order."""
    source = [
        {"image": "a.jpg", "captions": ["a cat sits", "nobody"], "key": "a"},
        {"image": "b.jpg", "captions": ["a dog sits", "a dog stands"], "key": "b"},
    ]

    class Animals:
        def candidates(self, record, i, rng):
            said = record["captions"][i]
            cow, sits = re.sub("cat|dog", "cow", said), said.replace("stands", "sits")
            return {"replace_noun": ["A CAT SITS", cow], "replace_verb": [sits]}

    kinds = ("replace_noun", "replace_verb", "swap_noun")
    chosen = set()
    for seed in range(8):
        items = Captions(source, Animals(), kinds, seed).items()
        assert len({item.key for item in items}) == len(items)
        for item in items:
            assert item.image in ("a.jpg", "b.jpg") and item.answer == item.options[0]
            captions = source["ab".index(item.image[0])]["captions"]
            assert item.answer in captions and item.options[1].lower() != item.answer
        chosen |= {(item.image[0], item.skill, *item.options) for item in items}
    # "nobody" has no negative of its own, and a negative that is the caption is none.
    assert {each for each in chosen if each[1] == "replace_verb"} == {
        ("b", "replace_verb", "a dog stands", "a dog sits")
    }
    assert ("a", "replace_noun", "a cat sits", "a cow sits") in chosen
    dogs = {each[2:] for each in chosen if each[0] == "b" and each[1] == "replace_noun"}
    assert dogs == {("a dog sits", "A CAT SITS"), ("a dog stands", "A CAT SITS")}


def test_scenes():
    items = Scenes(scenes=20, size=32).items("seen")
    assert len({item.key for item in items}) == len(items)
    assert Counter(item.skill for item in items)["replace_noun"] == 20
    assert items[0].image.shape == (32, 32, 3) and items[0].image.dtype == np.uint8
    other = Scenes(scenes=20, size=32, seed=1).items("seen")
    assert not {i.key for i in items} & {i.key for i in other}


def test_a_tutors_next_turn(shared):
    """The teachers' own turns tell where the published count has it, if both speak in turn."""
    folder = shared / "data/teaching/mathdial"
    task = Tutoring(folder)
    items = task.items("test")
    assert len(items) == len({item.key for item in items})
    told = {int(item.key.split("/")[1]) for item in items if not task.grade(item.answer, item)}
    dialogues = mathdial.read(folder / "mathdial_test.jsonl")
    counted = {i for i, d in enumerate(dialogues) if mathdial.progress(d).telling(99)}
    in_turn = {
        i for i, d in enumerate(dialogues)
        if all(t.role == ("teacher", "student")[k % 2] for k, t in enumerate(d.turns))
    }  # fmt: skip
    assert told & in_turn == counted & in_turn and len(told & in_turn) > 60
    first = next(item for item in items if item.skill == "probing")
    assert task.render(first).endswith("\nTeacher:")
    shown = task.render(first, [items[0]], help="focus")
    assert shown.endswith("\nTeacher (focus):") and f"Teacher: {items[0].answer}\n\n" in shown
    assert task.parse(" Teacher: And then?\nStudent: Yes.", first) == "And then?"
    assert task.parse("\nStudent: Yes.", first) is None


@pytest.mark.parametrize(
    "make, file, content, problem",
    [
        (
            StrategyQA,
            "strategyqa_dev.json",
            '[{"qid": "a", "question": "b"}]',
            "row 0 has no answer",
        ),
        (StrategyQA, "strategyqa_dev.json", '{"qid": "a"}', "holds no list"),
        (GSM8K, "gsm8k_dev.jsonl", '{"question": "a"}\n', "line 1 has no answer"),
        (GSM8K, "gsm8k_dev.jsonl", "[1]\n", "line 1 is no object with question, answer"),
        (Liar, "liar_dev.jsonl", '{"text": "a"}\n', "line 1 has no label"),
        (ECQA, "ecqa_dev.csv", "q_no,q_text\n1,a\n", "has no q_op1, .* in row"),
        (
            *(ECQA, "ecqa_dev.csv"),
            "q_no,q_text,q_op1,q_op2,q_op3,q_op4,q_op5,q_ans,taskB\n1,a,b,c,d,e,f,g,h\n",
            "'g' is no choice of '1'",
        ),
    ],
)
def test_a_row_of_another_layout_is_named(tmp_path, make, file, content, problem):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=problem):
        make(tmp_path).items("dev")


def test_math_names_the_row_that_lacks_something(tmp_path):
    (tmp_path / "math.json").write_text('[{"unique_id": "a", "subject": "b", "problem": "c"}]')
    with pytest.raises(UserError, match="row 0 has no answer"):
        Math(tmp_path / "math.json").items()
