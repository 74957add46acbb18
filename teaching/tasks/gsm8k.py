"""GSM8K: word problems of primary school, and their solutions with calculator annotations."""

import dataclasses
import re
from pathlib import Path

from errors import UserError
from files import read_records
from teaching.answers import ANNOTATION, SIGNED, exact
from teaching.base import Item
from teaching.tasks.explained import ExplainedTask


@dataclasses.dataclass(frozen=True)
class GSM8K(ExplainedTask):
    """Attributes: data, the folder with gsm8k_test.jsonl and the like. Answers are numbers.

    Of an explanation the first sentence is handed over: the rest would hold the answer.
    """

    data: Path
    name: str = "gsm8k"

    def items(self, split: str) -> list[Item]:
        items = []
        rows = read_records(Path(self.data, f"gsm8k_{split}.jsonl"), ("question", "answer"))
        for line, (where, row) in enumerate(rows, 1):
            solution, marker, answer = row["answer"].rpartition("####")
            if not marker:
                raise UserError(f"{where}: no #### before the answer")
            plain = " ".join(ANNOTATION.sub("", solution).split())
            extra = {"explanation": plain, "solution": solution.strip()}
            answer = answer.strip().replace(",", "")
            items.append(Item(f"{split}/{line}", "gsm8k", row["question"], answer, extra=extra))
        return items

    def handed(self, explanation):
        return re.split(r"(?<=[.!?])\s+(?=[A-Z])", self.without_answer(explanation))[0]

    def read(self, said, item, first):
        numbers = SIGNED.findall(said)
        return numbers[0 if first else -1].replace(",", "") if numbers else None

    def grade(self, answer, item):
        return abs(exact(answer) - exact(item.answer)) < 1e-6
