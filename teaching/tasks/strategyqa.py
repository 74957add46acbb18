"""StrategyQA: yes or no, with the facts that decide it as a human explanation."""

import dataclasses
from pathlib import Path

from errors import MissingFileError
from files import read_records
from teaching.base import Item
from teaching.tasks.explained import ExplainedTask


@dataclasses.dataclass(frozen=True)
class StrategyQA(ExplainedTask):
    """Attributes: data, the folder with strategyqa_dev.json and strategyqa_train*.json."""

    data: Path
    name: str = "strategyqa"

    def items(self, split: str) -> list[Item]:
        files = sorted(Path(self.data).glob(f"strategyqa_{split}*.json"))
        if not files:
            raise MissingFileError(f"{self.data} has no strategyqa_{split}.json")
        return [
            Item(
                key=row["qid"],
                skill="strategyqa",
                question=row["question"],
                answer="yes" if row["answer"] else "no",
                options=("yes", "no"),
                extra={"explanation": " ".join(row["facts"])},
            )
            for _, row in read_records(files[0], ("qid", "question", "answer", "facts"))
        ]
