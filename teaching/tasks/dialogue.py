"""MathDial's dialogues (arXiv 2305.14536): files, roles repaired, and a tutor's next turn."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from files import read_jsonl
from teaching.base import Item, Task

MOVES = ("focus", "probing", "telling", "generic")
_RENAMED = {"leaking": "telling"}  # of the example files
_SEPARATOR = re.compile(r"\|EOM\||<EOM>")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Turn(NamedTuple):
    """An utterance; label is what the file calls the speaker, role who it is."""

    role: str
    label: str
    move: str | None
    text: str


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A problem, a student's wrong solution, and the talk about it.

    Attributes:
      answer: the right number, the solution's last line.
      verdict: the teacher's own, whether the student got there, or None.
    """

    qid: str
    question: str
    solution: str
    answer: float
    wrong_solution: str
    profile: str
    confusion: str
    verdict: str | None
    turns: tuple[Turn, ...]

    def said(self, role: str, published: bool = False) -> list[str]:
        """What was said in a role; as published, a student under their own name is nobody."""
        if published:
            return [turn.text for turn in self.turns if turn.label.lower() == role]
        return [turn.text for turn in self.turns if turn.role == role]


def read(path: Path, field: str = "conversation") -> list[Dialogue]:
    """Dialogues of a json lines file.

    Roles are repaired: some dialogues call the student by first name. Numbers may be strings,
    newlines may be written as backslash-n, and an old name of a move is known.

    Args:
      field: which of the file's conversations.

    Raises:
      UserError: a row of another layout; it is named.
    """
    dialogues = []
    for where, row in read_jsonl(path):
        try:
            dialogues.append(_dialogue(row, field))
        except KeyError as error:
            raise UserError(f"{where}: no field {error}") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    if not dialogues:
        raise UserError(f"{path}: holds no dialogue")
    return dialogues


def _dialogue(row: dict, field: str) -> Dialogue:
    if not isinstance(row, dict):
        raise UserError("not a json object")
    question, solution, wrong, profile, confusion, talk = (
        str(row[name]).replace("\\n", "\n")
        for name in (
            "question",
            "ground_truth",
            "student_incorrect_solution",
            "student_profile",
            "teacher_described_confusion",
            field,
        )
    )
    last = solution.strip().splitlines()[-1] if solution.strip() else ""
    try:
        answer = float(last.replace(",", ""))
    except ValueError:
        raise UserError(f"ground_truth must end in a line with a number, not {last!r}") from None
    name = profile.split()[0] if profile.split() else ""
    return Dialogue(
        qid=str(row["qid"]),
        question=question,
        solution=solution,
        answer=answer,
        wrong_solution=wrong,
        profile=profile,
        confusion=confusion,
        verdict=row.get("self-correctness"),
        turns=tuple(_turn(text, name) for text in _SEPARATOR.split(talk)),
    )


def _turn(text: str, name: str) -> Turn:
    label, colon, said = text.strip().partition(":")
    label = label.strip()
    # A comma: some profiles name the student "Luca is ..", others "Luca, a ..".
    roles = {"teacher": "teacher", "student": "student", name.lower().strip(",.:"): "student"}
    role = roles.get(label.lower())
    if not colon or not role:
        raise UserError(f"{label[:30]!r} is neither Teacher, Student nor the student's name")
    match = re.match(r"\s*\((\w+)\)", said)
    move = match and _RENAMED.get(match[1].lower(), match[1].lower())
    if role == "teacher" and move in MOVES:
        return Turn(role, label, move, said[match.end() :].strip())
    return Turn(role, label, None, said.strip())


def mentions(text: str, answer: float) -> bool:
    """Whether a number of the text is the answer; signs, fractions and words are not seen."""
    numbers = _NUMBER.findall(text.replace(",", ""))
    return any(abs(float(number) - answer) < 1e-7 for number in numbers)


def tutor_prompt(dialogue: Dialogue, turns: Sequence[Turn], move: str | None = None) -> str:
    """What a tutor sees before its next turn; with a move, it is told how to act."""
    talk = "".join(f"{turn.role.capitalize()}: {turn.text}\n" for turn in turns)
    return (
        "A teacher helps a student to find a mistake, politely, truthfully, and without telling "
        f"the answer.\n\nProblem: {dialogue.question}\nRight solution: {dialogue.solution.strip()}"
        f"\nStudent's solution: {dialogue.wrong_solution.strip()}\n"
        f"What the student confuses: {dialogue.confusion}\n\n"
        f"{talk}Teacher{f' ({move})' if move else ''}:"
    )


def utterance(text: str, role: str) -> str:
    """What a model wrote as a turn, without the speaker's name that it may begin with."""
    return re.sub(rf"^{role}\s*:\s*", "", text.strip(), flags=re.IGNORECASE).strip()


@dataclasses.dataclass(frozen=True)
class Tutoring(Task):
    """A tutor's next turn: right if it does not tell the answer before the student has said it.

    Help is a move of MOVES, by which the tutor is told how to act.

    Attributes:
      data: the folder with mathdial_test.jsonl and the like.
    """

    data: Path
    name: str = "dialogue"

    def items(self, split: str = "test") -> list[Item]:
        """Every turn of a teacher; the skill is its move."""
        items = []
        for number, dialogue in enumerate(read(Path(self.data, f"mathdial_{split}.jsonl"))):
            known = False
            for i, turn in enumerate(dialogue.turns):
                if turn.role == "teacher" and turn.text:
                    prompt = tutor_prompt(dialogue, dialogue.turns[:i])
                    extra = {"number": dialogue.answer, "known": known}
                    key, skill = f"{split}/{number}/{i}", turn.move or "none"
                    items.append(Item(key, skill, prompt, turn.text, extra=extra))
                known |= turn.role == "student" and mentions(turn.text, dialogue.answer)
        return items

    def render(self, item, demos=(), help=None):
        shown = "".join(f"{demo.question} {demo.answer}\n\n" for demo in demos)
        move = f" ({help}):" if help else ":"
        return shown + item.question.removesuffix(":") + move

    def parse(self, text, item, help=None):
        return utterance(text.partition("\nStudent:")[0], "teacher") or None

    def grade(self, answer, item):
        return item.extra["known"] or not mentions(answer, item.extra["number"])
