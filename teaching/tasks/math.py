"""MATH problems: an answer in LaTeX, compared as a value (teaching/answers.py)."""

import dataclasses
from pathlib import Path

from files import read_records
from teaching.answers import equivalent, read_answer
from teaching.base import Item, Task


@dataclasses.dataclass(frozen=True)
class Math(Task):
    """Attributes: data, a json list of {unique_id, subject, problem, answer, solution}."""

    data: Path
    name: str = "math"

    def items(self, split: str = "test") -> list[Item]:
        return [
            Item(
                key=row["unique_id"],
                skill=row["subject"],
                question=row["problem"],
                answer=row["answer"],
                extra={name: row[name] for name in ("solution", "exams") if name in row},
            )
            for _, row in read_records(self.data, ("unique_id", "subject", "problem", "answer"))
        ]

    def render(self, item, demos=(), help=None):
        def asked(item: Item) -> str:
            return f"[[Question]]:\n{item.question}\n[[Solution]]:\nLet's think step by step."

        shots = [
            f"{asked(d)} {d.extra['solution']}\n[[Final Answer]]: ${d.answer}$\n" for d in demos
        ]
        return "\n".join([*shots, asked(item) + (f" {help}" if help else "")])

    def parse(self, text, item, help=None):
        return read_answer(text.partition("[[Question]]")[0])

    def grade(self, answer, item):
        return equivalent(answer, item.answer)
