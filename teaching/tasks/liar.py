"""LIAR: is a political statement a lie? Answered by likeness to exemplars (arXiv 2406.14629)."""

import dataclasses
import re
from pathlib import Path

from files import read_records
from teaching.base import Item, Task


@dataclasses.dataclass(frozen=True)
class Liar(Task):
    """Attributes: data, the folder with liar_train.jsonl and liar_test.jsonl. Label 1 is a lie."""

    data: Path
    name: str = "liar"
    question: str = "Is the statement a lie? Answer yes or no."

    def items(self, split: str) -> list[Item]:
        rows = read_records(Path(self.data, f"liar_{split}.jsonl"), ("text", "label"))
        options = ("yes", "no")
        return [
            Item(f"{split}/{n}", "liar", row["text"], options[1 - row["label"]], options)
            for n, (_, row) in enumerate(rows, 1)
        ]

    def render(self, item, demos=(), help=None):
        blocks = [f"{d.question}\nAnswer: {d.answer}" for d in demos]
        hint = f"\nHint: {help}" if help else ""
        return "\n\n".join([self.question, *blocks, f"{item.question}{hint}\nAnswer:"])

    def parse(self, text, item, help=None):
        match = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
        return match and match[1].lower()
