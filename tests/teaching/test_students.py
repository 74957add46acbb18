"""Students: a scripted language model in its task, and a CLIP of two vectors."""

import numpy as np
import pytest

from language import scripted
from teaching.base import Item
from teaching.students import ClipStudent, LanguageStudent
from teaching.tasks.strategyqa import StrategyQA

TASK = StrategyQA("unused")
ITEMS = [
    Item(str(i), "s", f"Is {i} even?", "yes" if i % 2 == 0 else "no", ("yes", "no"))
    for i in range(4)
]


def parity(prompt, rng):
    """Right if it is told "Rule."; says yes without; stalls on the last question."""
    question = prompt.rpartition("Q: ")[2]
    if "3" in question and not question.rstrip().endswith("is"):
        return " I wonder. Who knows."
    number = int("".join(c for c in question.partition("?")[0] if c.isdigit()))
    even = "yes" if number % 2 == 0 else "no"
    return f" Well. So the answer is {even if 'Rule.' in prompt else 'yes'}\n\nQ: Next?"


def test_a_language_model_answers_is_helped_and_asked_again():
    model = scripted.open(parity)
    student = LanguageStudent(model, TASK)
    outcomes = student.answer(ITEMS)
    assert [o.answer for o in outcomes[:3]] == ["yes", "yes", "yes"]
    assert [o.correct for o in outcomes[:3]] == [True, False, True]
    # The fourth gave no answer, and was asked once more with its own explanation.
    assert model.calls["generate"] == 5
    assert outcomes[3].text == " I wonder. Who knows."
    assert outcomes[3].answer is None and not outcomes[3].correct


def test_help_is_handed_over_per_item():
    model = scripted.open(
        lambda prompt, rng: " no." if prompt.endswith("Odd. So the answer is") else " yes"
    )
    outcomes = LanguageStudent(model, TASK).answer(ITEMS, help={"1": "Odd.", "2": "Odd."})
    assert [o.answer for o in outcomes] == ["yes", "no", "no", "yes"]


def test_material_becomes_demonstrations_and_comes_back_from_disk(tmp_path):
    student = LanguageStudent(scripted.open(parity), TASK, most_demos=2)
    records = [
        {"key": str(i), "skill": "s", "question": f"Q{i}", "answer": "yes", "options": ("yes",)}
        | {"extra": {"explanation": "Rule."}}
        for i in range(3)
    ]
    taught = student.fit(records, 0)
    assert [demo.key for demo in taught.demos] == ["1", "2"] and student.demos == ()
    assert [o.correct for o in taught.answer(ITEMS[:3])] == [True] * 3
    taught.save(tmp_path)
    assert student.load(tmp_path).demos == taught.demos


def test_training_by_gradient_is_handed_in():
    better = scripted.open(lambda prompt, rng: "no", name="better")
    student = LanguageStudent(scripted.open(parity), TASK, trainer=lambda records, seed: better)
    assert student.fit([{"skill": "s"}], 0).model is better


class TwoVectors:
    """Texts and images are angles in the plane; params turn the texts."""

    def __init__(self, params):
        self.turn = float(params["turn"])

    def images(self, images):
        return np.array([[np.cos(a), np.sin(a)] for a in images], np.float32)

    def texts(self, texts):
        return self.images([float(t) + self.turn for t in texts])


def clip_student():
    return ClipStudent(
        {"turn": np.float32(0)},
        TwoVectors,
        lambda params, records, seed: {"turn": params["turn"] + np.float32(sum(records))},
        logit_scale=lambda params: 2.0,
    )


def test_clip_picks_the_nearest_text():
    items = [
        Item("0", "s", "", "0.1", ("0.1", "1.0"), image=0.0),
        Item("1", "s", "", "0.1", ("0.1", "1.0"), image=1.2),
        Item("tie", "s", "", "0.5", ("0.5", "-0.5"), image=0.0),
    ]
    outcomes = clip_student().answer(items)
    assert [o.correct for o in outcomes] == [True, False, False]
    assert outcomes[2].answer is None  # a tie is no answer
    a, b = 2 * np.cos(0.1), 2 * np.cos(1.0)
    assert outcomes[0].p_correct == pytest.approx(np.exp(a) / (np.exp(a) + np.exp(b)), rel=1e-5)
    # Turned by 1, the second item's wrong option has left its image.
    assert clip_student().fit([1.0], 0).answer(items)[1].correct


def test_clip_parameters_come_back_from_disk(tmp_path):
    taught = clip_student().fit([0.25, 0.5], 0)
    taught.save(tmp_path)
    assert clip_student().load(tmp_path).params == {"turn": 0.75}
    other = ClipStudent({"turn": np.zeros(2)}, TwoVectors, None)
    with pytest.raises(ValueError, match="parameters of another student"):
        other.load(tmp_path)
