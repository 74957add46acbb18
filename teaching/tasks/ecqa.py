"""ECQA: five choices of common sense, with a human explanation."""

import csv
import dataclasses
import re
from pathlib import Path

from errors import UserError
from teaching.base import Item
from teaching.tasks.explained import ExplainedTask


@dataclasses.dataclass(frozen=True)
class ECQA(ExplainedTask):
    """Attributes: data, the folder with ecqa_test.csv and the like. Answers are "1" to "5"."""

    data: Path
    name: str = "ecqa"
    lead = "So the correct choice is"

    def items(self, split: str) -> list[Item]:
        items, options = [], [f"q_op{i}" for i in range(1, 6)]
        columns, path = ("q_no", "q_text", *options, "q_ans", "taskB"), f"ecqa_{split}.csv"
        # Its explanations hold quotes that files.read_table() refuses.
        with Path(self.data, path).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                if missing := [name for name in columns if row.get(name) is None]:
                    raise UserError(f"{path} has no {', '.join(missing)} in row {row}")
                choices = [row[name] for name in options]
                if row["q_ans"] not in choices:
                    raise UserError(f"{path}: {row['q_ans']!r} is no choice of {row['q_no']!r}")
                extra = {"explanation": " ".join(row["taskB"].split()), "choices": choices}
                answer = str(choices.index(row["q_ans"]) + 1)
                items.append(
                    Item(row["q_no"], "ecqa", row["q_text"], answer, tuple("12345"), extra=extra)
                )
        return items

    def question(self, item: Item) -> str:
        choices = enumerate(item.extra["choices"], 1)
        return "\n".join([f"Q: {item.question}", *(f"Choice {i}: {c}" for i, c in choices)])

    def read(self, said, item, first):
        numbers = re.findall(r"(?:^\W*|\bchoice\s+)([1-5])\b", said, re.IGNORECASE)
        if numbers:
            return numbers[0 if first else -1]
        # The choice whose words stand first, the longest of several; not one within a longer word.
        at = {
            str(i): match.start()
            for i, choice in enumerate(item.extra["choices"], 1)
            if (match := re.search(rf"\b{re.escape(choice.lower())}\b", said.lower()))
        }
        longest = {i: -len(item.extra["choices"][int(i) - 1]) for i in at}
        return min(at, key=lambda i: (at[i], longest[i]), default=None)
