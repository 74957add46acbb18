"""Tutoring dialogues that must not give the answer away (MathDial, arXiv 2305.14536).

`python -m teaching.mathdial report mathdial.jsonl` prints Success@k and Telling@k, as published and
with the roles repaired; `sft` writes a tutor's training data; `converse` lets two models talk.

Success@k: the student has said the right number in its turn k (from 0) or before. Telling@k: the
teacher has said it at that time and before the student.
"""

import argparse
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from errors import UserError, one_line_errors
from files import write_jsonl
from language import base as language
from language.base import LanguageModel
from paths import disk_argument
from teaching.tasks.dialogue import Dialogue, Turn, mentions, read, tutor_prompt, utterance

TURNS = (0, 1, 3, 5, 7, 10, 15)


def first_mention(said: Sequence[str], answer: float, start: int = 0) -> int | None:
    """The first turn from `start` on that holds the answer."""
    turns = (i for i, text in enumerate(said) if i >= start and mentions(text, answer))
    return next(turns, None)


@dataclasses.dataclass(frozen=True)
class Progress:
    """When a dialogue's student and teacher first said the answer, by turns of their own."""

    student: int | None
    teacher: int | None

    def success(self, k: int) -> bool:
        return self.student is not None and self.student <= k

    def telling(self, k: int) -> bool:
        """At one index the teacher has spoken before the student."""
        end = k if self.student is None else min(k, self.student)
        return self.teacher is not None and self.teacher <= end


def progress(dialogue: Dialogue, published: bool = False, walk_through: bool = True) -> Progress:
    """See Progress.

    Args:
      published: count roles by their labels, as the authors' script does.
      walk_through: count the student's first turn, which only repeats the wrong solution.
    """
    student = dialogue.said("student", published)
    return Progress(
        first_mention(student, dialogue.answer, start=0 if walk_through else 1),
        first_mention(dialogue.said("teacher", published), dialogue.answer),
    )


def counts(
    dialogues: Sequence[Dialogue], turns: Sequence[int] = TURNS, **options
) -> dict[str, list[int]]:
    """How many dialogues have success and telling at each k; options of progress."""
    reached = [progress(dialogue, **options) for dialogue in dialogues]
    return {
        name: [sum(getattr(each, name)(k) for each in reached) for k in turns]
        for name in ("success", "telling")
    }


def knowledge_f1(utterance: str, problem: str) -> float:
    """F1 of the tokens that an utterance shares with the problem's text (KF1)."""
    said, text = (Counter(re.findall(r"\w+", part.lower())) for part in (utterance, problem))
    shared = (said & text).total()
    return 2 * shared / (said.total() + text.total()) if shared else 0.0


def bleu(replies: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU by sacreBLEU, 0 to 100.

    Raises:
      UserError: sacreBLEU is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise UserError("BLEU needs sacreBLEU: pip install -e '.[teaching]'") from None
    return sacrebleu.corpus_bleu(list(replies), [list(references)]).score


def student_prompt(dialogue: Dialogue, turns: Sequence[Turn]) -> str:
    """What a simulated student sees before its next turn."""
    talk = "".join(f"{turn.role.capitalize()}: {turn.text}\n" for turn in turns)
    return (
        "A student of the seventh grade could not find the right steps of a problem. The student "
        "corrects the solution only after several good questions by the teacher, and calculates "
        f"without mistakes.\n\nProblem: {dialogue.question}\n"
        f"Student's solution: {dialogue.wrong_solution.strip()}\n\n{talk}Student:"
    )


def sft_records(dialogues: Iterable[Dialogue], moves: bool) -> Iterator[dict]:
    """{prompt, completion} for each teacher turn; the loss is on the completion alone.

    Args:
      moves: name the turn's move in the prompt.
    """
    for dialogue in dialogues:
        for i, turn in enumerate(dialogue.turns):
            if turn.role == "teacher" and turn.text:
                prompt = tutor_prompt(dialogue, dialogue.turns[:i], turn.move if moves else None)
                yield {"prompt": prompt, "completion": f" {turn.text}\n"}


OPENING = "Hello! Could you walk me through your solution?"
Speaker = Callable[[Dialogue, Sequence[Turn], int], str]  # (dialogue, turns, attempt) -> text


def speaker(model: LanguageModel, role: str) -> Speaker:
    """A language model in a role; at the first attempt greedy, then sampled."""
    prompt, other = {
        "teacher": (tutor_prompt, "\nStudent:"),
        "student": (student_prompt, "\nTeacher:"),
    }[role]

    def speak(dialogue, turns, attempt):
        sampling = {"temperature": 0.7, "seed": attempt} if attempt else {}
        answers = model.generate(
            [prompt(dialogue, turns)], max_tokens=512, stop=(other,), **sampling
        )
        return utterance(answers[0][0].text, role)

    return speak


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A simulated dialogue, how often a speaker had to be asked again, and whether one gave up."""

    dialogue: Dialogue
    retries: int
    complete: bool


def converse(
    problem: Dialogue, tutor: Speaker, student: Speaker, *, rounds: int = 4, retries: int = 3
) -> Conversation:
    """The opening and `rounds` turns of student and tutor; an empty reply is asked for again.

    A speaker who stays silent after `retries` further attempts ends the dialogue.
    """
    turns = [Turn("teacher", "Teacher", None, OPENING)]
    asked_again = 0
    for _ in range(rounds):
        for role, speak in (("student", student), ("teacher", tutor)):
            for attempt in range(retries + 1):
                text = speak(problem, tuple(turns), attempt)
                if text:
                    break
                asked_again += attempt < retries
            else:
                told = dataclasses.replace(problem, turns=tuple(turns))
                return Conversation(told, asked_again, complete=False)
            turns.append(Turn(role, role.capitalize(), None, text))
    return Conversation(dataclasses.replace(problem, turns=tuple(turns)), asked_again, True)


def report(dialogues: Sequence[Dialogue]) -> str:
    """Success@k and Telling@k as text, as published and with roles repaired."""
    lines = [f"{len(dialogues)} dialogues, %{'k =':>25}" + "".join(f"{k:8d}" for k in TURNS)]
    for name, options in (
        ("as published", {"published": True}),
        ("roles repaired", {}),
        ("without walk-through", {"walk_through": False}),
    ):
        for figure, reached in counts(dialogues, **options).items():
            shares = "".join(f"{100 * count / len(dialogues):8.2f}" for count in reached)
            lines.append(f"{figure:<8} {name:<34}{shares}")
    named = sum(
        any(turn.label.lower() not in ("teacher", "student") for turn in dialogue.turns)
        for dialogue in dialogues
    )
    moves = Counter(turn.move for d in dialogues for turn in d.turns if turn.role == "teacher")
    lines.append(f"dialogues that name the student: {named}")
    lines += [f"teacher's move {move}: {count}" for move, count in moves.most_common()]
    return "\n".join(lines)


@one_line_errors()
def main(arguments: Sequence[str] | None = None, load: Callable = language.load) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("report", "sft", "converse"))
    parser.add_argument("dialogues", type=disk_argument)
    parser.add_argument("--field", default="conversation", help="which conversation of a row")
    parser.add_argument("--out", type=disk_argument, help="json lines to write (sft, converse)")
    parser.add_argument("--moves", action="store_true", help="name moves in the prompts (sft)")
    language.add_arguments(parser, help="a backend of language/, of both speakers (converse)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--limit", type=int, help="the first so many dialogues")
    options = parser.parse_args(arguments)
    dialogues = read(options.dialogues, options.field)[: options.limit]
    if options.command != "report" and not options.out:
        raise UserError(f"{options.command} writes a file: give --out")
    if options.command == "converse":
        if not options.model:
            raise UserError("converse needs a --model")
        model = load(options.model, **dict(options.option))
        dialogues = _simulate(dialogues, model, options.rounds, options.out)
    if options.command == "sft":
        records = list(sft_records(dialogues, options.moves))
        _write(options.out, records)
        print(f"{options.out}: {len(records)} turns")
    else:
        print(report(dialogues))


def _simulate(problems, model: LanguageModel, rounds: int, path: Path) -> list[Dialogue]:
    tutor, student = speaker(model, "teacher"), speaker(model, "student")
    told = [converse(problem, tutor, student, rounds=rounds) for problem in problems]
    _write(path, [dataclasses.asdict(each) for each in told])
    again, broken = sum(each.retries for each in told), sum(not each.complete for each in told)
    print(f"{path}: {len(told)} dialogues, {again} replies asked for again, {broken} broken off")
    return [each.dialogue for each in told]


def _write(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)


if __name__ == "__main__":
    main()
