"""MathDial: every figure of the test set, repaired roles, bounded dialogues, and a tutor's data."""

import dataclasses
import json
from collections import Counter

import pytest
import sacrebleu

from language import scripted
from teaching import mathdial
from teaching.mathdial import converse, counts
from teaching.tasks.dialogue import MOVES, Dialogue, Turn, mentions


@pytest.fixture(scope="module")
def dialogues(shared):
    return mathdial.read(shared / "data/teaching/mathdial/mathdial_test.jsonl")


def test_success_and_telling_as_published(dialogues):
    """Counts over the 599 test dialogues, for k = 0, 1, 3, 5, 7, 10, 15."""
    assert len(dialogues) == 599
    assert counts(dialogues, published=True) == {
        "success": [125, 205, 334, 431, 486, 516, 519],
        "telling": [5, 17, 31, 49, 62, 73, 76],
    }
    shares = [round(n / 599, 4) for n in counts(dialogues, published=True)["success"]]
    assert shares == [0.2087, 0.3422, 0.5576, 0.7195, 0.8114, 0.8614, 0.8664]


def test_success_and_telling_with_roles_repaired(dialogues):
    repaired = counts(dialogues, (0, 1, 3, 5))
    assert [round(n / 599, 4) for n in repaired["success"]] == [0.2204, 0.3606, 0.5943, 0.7663]
    assert [round(n / 599, 4) for n in repaired["telling"]] == [0.0083, 0.0267, 0.0501, 0.0768]
    later = counts(dialogues, (0, 1, 3), walk_through=False)["success"]
    assert [round(n / 599, 4) for n in later] == [0, 0.2437, 0.5409]


def test_against_the_teachers_own_verdict(dialogues):
    solved = Counter((d.verdict, mathdial.progress(d).success(99)) for d in dialogues)
    assert (solved["Yes", True], solved["Yes", False]) == (419, 14)
    assert (solved["No", True], solved["No", False]) == (42, 26)
    verdicts = Counter(d.verdict for d in dialogues)
    assert verdicts["Yes, but I had to reveal the answer"] == 94 and verdicts[None] == 4


def test_the_answer_is_found_by_chance(dialogues):
    assert sum(mentions(d.wrong_solution, d.answer) for d in dialogues) == 150
    assert sum(mentions(d.question, d.answer) for d in dialogues) == 50


def test_roles_and_moves(dialogues):
    odd = [d for d in dialogues if any(t.label not in ("Teacher", "Student") for t in d.turns)]
    assert len(odd) == 39
    assert sum(t.label not in ("Teacher", "Student") for d in odd for t in d.turns) == 234
    assert not any(d.said("student", published=True) for d in odd)
    moves = Counter(t.move for d in dialogues for t in d.turns if t.role == "teacher")
    assert moves.total() == 3699 and set(moves) == set(MOVES)
    shares = {move: round(100 * moves[move] / 3699, 1) for move in MOVES}
    assert shares == {"focus": 34.0, "probing": 25.7, "generic": 24.1, "telling": 16.2}
    lengths = [len(d.turns) for d in dialogues]
    assert round(sum(lengths) / 599, 1) == 11.7 and max(lengths) == 46
    assert round(sum(d.turns[0].move == "generic" for d in dialogues) / 599, 3) == 0.758
    telling = sum(any(t.move == "telling" for t in d.turns) for d in dialogues)
    assert round(telling / 599, 3) == 0.539


def test_example_files_are_read_alike(shared):
    """Strings where the test set has numbers, backslash-n, an old move name, other separators."""
    folder = shared / "data/teaching/mathdial"
    first = mathdial.read(folder / "mathdial_example.jsonl")[0]
    assert first.answer == 30 and first.qid == "5000794"
    assert "\n" in first.solution and "\\n" not in first.solution
    assert [t.move for t in first.turns if t.role == "teacher"][:2] == ["generic", "telling"]
    model = mathdial.read(folder / "mathdial_example_model_output.jsonl", "chatgpt_baseline")[0]
    assert [t.role for t in model.turns[:3]] == ["teacher", "student", "teacher"]
    assert mathdial.progress(model) == mathdial.Progress(student=1, teacher=1)
    assert mathdial.progress(model).telling(1)  # the teacher spoke first


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("It is 1,200 pens.", 1200, True),
        ("12.50 dollars", 12.5, True),
        ("minus -7", 7, True),
        ("thirty", 30, False),
        ("1/2", 0.5, False),
        ("130", 30, False),
        ("30.", 30, True),
        ("", 0, False),
    ],
)
def test_numbers_of_an_utterance(text, answer, found):
    assert mentions(text, answer) == found


def test_telling_needs_the_teacher_first():
    assert mathdial.Progress(student=1, teacher=1).telling(1)
    assert not mathdial.Progress(student=1, teacher=2).telling(5)
    assert not mathdial.Progress(student=None, teacher=2).telling(1)
    assert mathdial.Progress(student=None, teacher=2).telling(2)
    assert not mathdial.Progress(student=None, teacher=2).success(9)


@pytest.mark.parametrize(
    ("talk", "success", "telling"),
    [
        # The two cases of the released tests, in other words: the student gets there in its turn 2
        # and is praised; the teacher tells in its turn 2, and the student repeats it in turn 3.
        (["Yes?", "I had 5.", "Why?", "Oh.", "So?", "It is 6.", "6 is right!", "Bye."],
         [False, True, True], [False, False, False]),
        (["Yes?", "I had 5.", "Why?", "Oh.", "It is 6.", "Fine.", "Good.", "It was 6, then."],
         [False, False, True], [False, True, True]),
    ],
)  # fmt: skip
def test_turns_count_from_the_walk_through(talk, success, telling):
    turns = [
        mathdial.Turn(role, role, None, text)
        for role, text in zip(["teacher", "student"] * 4, talk, strict=True)
    ]
    told = mathdial.progress(dataclasses.replace(PROBLEM, answer=6.0, turns=tuple(turns)))
    assert [told.success(k) for k in (1, 2, 3)] == success
    assert [told.telling(k) for k in (1, 2, 3)] == telling


PROBLEM = Dialogue("1", "What is 3 + 4?", "3 + 4 = 7\n 7", 7.0, "34\n 34", "Ann", "", None, ())


def test_a_dialogue_has_so_many_rounds():
    """A student who gets it in the third round; a tutor who never tells."""

    def student(dialogue, turns, attempt):
        return "7!" if sum(turn.role == "student" for turn in turns) == 2 else "34?"

    told = converse(PROBLEM, lambda *_: "How do you add?", student, rounds=5)
    assert told.complete and told.retries == 0
    assert [turn.role for turn in told.dialogue.turns] == ["teacher", *["student", "teacher"] * 5]
    assert mathdial.progress(told.dialogue) == mathdial.Progress(student=2, teacher=None)
    assert counts([told.dialogue], (1, 2)) == {"success": [0, 1], "telling": [0, 0]}


def test_silence_is_asked_again_and_then_ends_the_dialogue():
    attempts = []

    def silent(dialogue, turns, attempt):
        attempts.append(attempt)
        return ""

    told = converse(PROBLEM, lambda *_: "And?", silent, retries=2)
    assert attempts == [0, 1, 2]
    assert not told.complete and told.retries == 2
    assert told.dialogue.turns == (Turn("teacher", "Teacher", None, mathdial.OPENING),)
    shy = converse(PROBLEM, lambda *_: "And?", lambda d, t, attempt: "x" * attempt, rounds=1)
    assert shy.complete and shy.retries == 1


def test_models_speak_in_their_role():
    """A model that goes on for both is cut, and its label is not part of what it says."""
    seen = []

    def answer(prompt, rng):
        seen.append(prompt)
        if prompt.endswith("Student:"):
            return " I see, 3 and 4.\nTeacher: and then the tutor"
        return "Teacher: Add them.\nStudent: 7"

    model = scripted.open(answer)
    told = converse(
        PROBLEM, mathdial.speaker(model, "teacher"), mathdial.speaker(model, "student"), rounds=1
    )
    assert [turn.text for turn in told.dialogue.turns[1:]] == ["I see, 3 and 4.", "Add them."]
    assert "Right solution" in seen[1] and "Right solution" not in seen[0]


def test_training_data_of_a_tutor(dialogues):
    plain, moved = (list(mathdial.sft_records(dialogues[:20], moves)) for moves in (False, True))
    turns = [t for d in dialogues[:20] for t in d.turns if t.role == "teacher" and t.text]
    assert [r["completion"] for r in plain] == [f" {t.text}\n" for t in turns]
    assert all(r["prompt"].endswith("Teacher:") for r in plain)
    assert [r["prompt"].rpartition("(")[2] for r in moved] == [f"{t.move}):" for t in turns]
    # The turn to be learnt, and what follows it, is not in its prompt.
    second = [r for r in plain if r["prompt"].count("\nTeacher:") == 2][0]
    assert second["completion"].strip() not in second["prompt"]


def test_text_metrics(dialogues):
    said = [t.text for d in dialogues[:5] for t in d.turns if t.role == "teacher"]
    assert mathdial.bleu(said, said) == pytest.approx(100)
    shifted = said[1:] + said[:1]
    assert mathdial.bleu(said, shifted) == sacrebleu.corpus_bleu(said, [shifted]).score
    # 2 shared tokens of 3 said and 5 in the text: 2 * 2 / 8.
    assert mathdial.knowledge_f1("a cat sat", "a cat is not, here") == pytest.approx(0.5)
    assert mathdial.knowledge_f1("", "a") == 0


def test_commands(shared, tmp_path, capsys):
    file = str(shared / "data/teaching/mathdial/mathdial_test.jsonl")
    mathdial.main(["report", file])
    out = capsys.readouterr().out
    assert "71.95" in out and "dialogues that name the student: 39" in out
    mathdial.main(["sft", file, "--moves", "--limit=3", f"--out={tmp_path / 'sft.jsonl'}"])
    rows = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"prompt", "completion"}
    model = scripted.open(lambda prompt, rng: "Is it 10?")
    command = ["converse", file, "--model=scripted", "--limit=2", f"--out={tmp_path / 'c.jsonl'}"]
    mathdial.main(command, load=lambda name: model)
    assert "2 dialogues, 0 replies asked for again" in capsys.readouterr().out
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 2


ROW = {
    "qid": 1,
    "question": "q",
    "ground_truth": "x\n 7",
    "student_incorrect_solution": "6",
    "student_profile": "Ann is slow.",
    "teacher_described_confusion": "",
    "conversation": "Teacher: (focus)Hi|EOM|Ann: 7",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ground_truth": "seven"}, "line 1: ground_truth must end in a line with a number"),
        ({"conversation": "Bob: hi"}, "'Bob' is neither Teacher, Student nor"),
        ({"conversation": ""}, "is neither Teacher"),
        ({"question": None}, None),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    row = ROW | change
    if message is None:
        del row["question"]
        message = "line 1: no field 'question'"
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        mathdial.read(tmp_path / "x.jsonl")
