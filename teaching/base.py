"""The loop that every paper here is an instance of: look, plan, make, learn, look again.

A teacher sees what its student gets wrong, plans within a budget, makes material, and the student
learns from it; how much better it then answers is the reward. A task says what is asked and how an
answer is read and graded. A paper's file holds its own step of this loop and nothing else of it.
"""

import dataclasses
import json
import re
import shutil
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from files import read_jsonl, read_object, write_json, write_jsonl

Record = dict[str, Any]  # a piece of material, plain json; "skill" says what it is to teach


@dataclasses.dataclass(frozen=True)
class Item:
    """What is asked.

    Attributes:
      key: unique within a task.
      skill: what it needs; rewards are told by skill.
      options: the answers to choose from; () where the answer is free.
      image: of a picture, whatever the student's encoder takes.
      extra: what else a task knows of it, such as a human explanation.
    """

    key: str
    skill: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    image: Any = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a student answered.

    Attributes:
      answer: None where none could be read: it is wrong, and it is counted.
      p_correct: the student's own probability of the right answer, or None where unknown.
      text: what it wrote, if it writes.
    """

    item: Item
    answer: str | None
    correct: bool
    p_correct: float | None = None
    text: str = ""


class Task:
    """What is asked and how an answer is read and graded; see teaching/tasks."""

    name: str

    def items(self, split: str) -> list[Item]:
        raise NotImplementedError

    def render(self, item: Item, demos: Sequence[Item] = (), help: str | None = None) -> str:
        """The prompt; `help` is an explanation that is handed over, after which to answer."""
        raise NotImplementedError

    def parse(self, text: str, item: Item, help: str | None = None) -> str | None:
        """The answer in what was written after render(item, .., help), or None."""
        raise NotImplementedError

    def again(self, item: Item, demos: Sequence[Item], text: str) -> tuple[str, str] | None:
        """(prompt, help) that ask once more after a text without an answer; None: do not."""
        return None

    def grade(self, answer: str, item: Item) -> bool:
        return answer == item.answer


class Student:
    """Who answers and learns. fit() makes a new student; none changes in place."""

    def answer(
        self, items: Sequence[Item], demos: Sequence[Item] = (), help: Mapping | None = None
    ) -> list[Outcome]:
        """Answers in order; `help` maps keys of items to what the student is told about them."""
        raise NotImplementedError

    def fit(self, records: Sequence[Record], seed: int) -> "Student":
        """A new student who has learnt from the records."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes what fit() changed into an empty folder."""
        raise NotImplementedError

    def load(self, folder: Path) -> "Student":
        """The student whom save() wrote."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of an episode; turn 0 is the student before any teaching.

    Attributes:
      plan: as the teacher made it, plain json.
      reward: change of accuracy since the turn before, by skill.
      measured: by name, what else was measured, such as what must not be lost.
      spent: records and words so far, all turns together.
    """

    number: int
    plan: Any
    records: tuple[Record, ...]
    outcomes: tuple[Outcome, ...]
    reward: Mapping[str, float]
    measured: Mapping[str, float]
    spent: Mapping[str, int]


class State(NamedTuple):
    """What a teacher sees. One who decides by the turns so far alone can be resumed."""

    history: tuple[Turn, ...]

    @property
    def last(self) -> Turn:
        return self.history[-1]


class Teacher:
    """Who plans and makes material; both are functions of their arguments alone."""

    def plan(self, state: State, budget: int, rng: np.random.Generator) -> Any:
        """What to make with at most `budget` records, as plain json."""
        raise NotImplementedError

    def make(self, plan: Any, rng: np.random.Generator) -> list[Record]:
        """The material; a record that cannot be made is left out."""
        raise NotImplementedError


def rng_of(seed: int, turn: int, name: str) -> np.random.Generator:
    """The random numbers of one purpose in one turn."""
    return np.random.default_rng((seed, turn, zlib.crc32(name.encode())))


def check_enough(what: str, wanted: int, available: int) -> None:
    """Raises a UserError where there are fewer of something than an experiment takes."""
    if wanted > available:
        raise UserError(f"{wanted} {what} are wanted; there are {available}")


def accuracy(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The share of right answers by skill, 0 to 1, in order of first appearance."""
    right = defaultdict(list)
    for outcome in outcomes:
        right[outcome.item.skill].append(outcome.correct)
    return {skill: float(np.mean(each)) for skill, each in right.items()}


@dataclasses.dataclass(frozen=True)
class Episode:
    """Turns of one teacher and one student, kept on disk.

    Attributes:
      items: what the student is asked before and after each turn.
      workdir: of this episode alone; a restart goes on after its last whole turn.
      budget: records a turn.
      most_records: no further turn once so many were made, all turns together.
      fit_from: "base": each turn starts from the first student, with all material so far; "last":
        it goes on from the turn before, with the new material.
      measure: student -> what else to measure after each turn, by name.
    """

    student: Student
    teacher: Teacher
    items: Sequence[Item]
    workdir: Path
    turns: int
    budget: int
    most_records: int | None = None
    fit_from: str = "base"
    seed: int = 0
    measure: Callable[[Student], Mapping[str, float]] = lambda student: {}
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self):
        if self.fit_from not in ("base", "last"):
            raise UserError(f"fit_from is {self.fit_from!r}; give 'base' or 'last'")
        keys = [item.key for item in self.items]
        if not keys or len(set(keys)) < len(keys):
            raise UserError("an episode needs items, each with a key of its own")
        if min(self.turns, self.budget) < 1:
            raise UserError(f"turns={self.turns}, budget={self.budget}: each must be at least 1")

    def run(self) -> tuple[Student, list[Turn]]:
        """The student after the last turn, and all turns.

        Raises:
          UserError: the folder holds another episode, or a teacher goes beyond its budget.
        """
        self._claim()
        done = self._read()
        student = self.student.load(self._folder(len(done) - 1)) if len(done) > 1 else self.student
        if not done:
            done = [self._write(student, self._look(student, [], None, []))]
        start, first = time.monotonic(), len(done)
        while len(done) <= self.turns and (budget := self._left(done)):
            student, turn = self._next(student, done, budget)
            done.append(self._write(student, turn))
            left = (time.monotonic() - start) / (len(done) - first) * (self.turns + 1 - len(done))
            mean = np.mean(list(accuracy(turn.outcomes).values()))
            self.say(f"turn {turn.number}/{self.turns}: {mean:.1%}, {left / 60:.0f} min left")
        return student, done

    def _left(self, done: Sequence[Turn]) -> int:
        """Records that the next turn may have."""
        if self.most_records is None:
            return self.budget
        return max(0, min(self.budget, self.most_records - done[-1].spent["records"]))

    def _next(self, student, done: Sequence[Turn], budget: int) -> tuple[Student, Turn]:
        number = len(done)
        plan = self.teacher.plan(State(tuple(done)), budget, rng_of(self.seed, number, "plan"))
        plan = json.loads(json.dumps(plan))  # as a resumed run will read it
        records = self.teacher.make(plan, rng_of(self.seed, number, "make"))
        records = json.loads(json.dumps(records))
        if len(records) > budget:
            raise UserError(f"turn {number}: {len(records)} records for a budget of {budget}")
        if records and self.fit_from == "last":
            student = student.fit(records, self.seed)
        elif records:
            before = [record for turn in done for record in turn.records]
            student = self.student.fit(before + records, self.seed)
        return student, self._look(student, done, plan, records)

    def _look(self, student, done: Sequence[Turn], plan, records) -> Turn:
        outcomes = student.answer(self.items)
        now = accuracy(outcomes)
        before = accuracy(done[-1].outcomes) if done else now
        words = sum(len(v.split()) for r in records for v in r.values() if isinstance(v, str))
        spent = done[-1].spent if done else {"records": 0, "words": 0}
        return Turn(
            number=len(done),
            plan=plan,
            records=tuple(records),
            outcomes=tuple(outcomes),
            reward={skill: now[skill] - before[skill] for skill in now},
            measured=dict(self.measure(student)),
            spent={"records": spent["records"] + len(records), "words": spent["words"] + words},
        )

    def _claim(self) -> None:
        """Refuses a folder that holds an episode of other settings; more turns are welcome."""
        names = ("teacher", "budget", "most_records", "fit_from", "seed")
        # An object's address is not of the episode.
        settings = {n: re.sub(r" at 0x[0-9a-f]+", "", repr(getattr(self, n))) for n in names}
        settings["items"] = zlib.crc32(repr([item.key for item in self.items]).encode())
        Path(self.workdir).mkdir(parents=True, exist_ok=True)
        path = Path(self.workdir, "episode.json")
        if not path.exists():
            write_json(path, settings, indent=1)
        elif (other := read_object(path)) != settings:
            wrong = [name for name in settings if settings[name] != other.get(name)]
            raise UserError(f"{path} is of another episode: {', '.join(wrong)} differ")

    def _folder(self, number: int) -> Path:
        return Path(self.workdir, f"student_{number:03d}")

    def _path(self, number: int) -> Path:
        return Path(self.workdir, f"turn_{number:03d}.jsonl")

    def _write(self, student: Student, turn: Turn) -> Turn:
        """First the student, then the turn that tells of it: it is there whole or not at all."""
        if turn.number:
            folder = self._folder(turn.number)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            student.save(folder)
        rows = [{k: v for k, v in vars(turn).items() if k not in ("records", "outcomes")}]
        rows += [{"record": record} for record in turn.records]
        rows += [{"outcome": vars(o) | {"item": o.item.key}} for o in turn.outcomes]
        write_jsonl(self._path(turn.number), rows)
        if turn.number > 1:
            shutil.rmtree(self._folder(turn.number - 1))
        return turn

    def _read(self) -> list[Turn]:
        items = {item.key: item for item in self.items}
        turns = []
        while (path := self._path(len(turns))).exists():
            head, *rows = (row for _, row in read_jsonl(path))
            records = tuple(row["record"] for row in rows if "record" in row)
            outcomes = [row["outcome"] for row in rows if "outcome" in row]
            outcomes = tuple(Outcome(**o | {"item": items[o["item"]]}) for o in outcomes)
            turns.append(Turn(**head, records=records, outcomes=outcomes))
        return turns
