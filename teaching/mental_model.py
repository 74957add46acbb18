"""A language model that simulates a student by examples of it (arXiv 2306.09299)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from language.base import LanguageModel, require
from options import check_known
from teaching.base import Item, Outcome
from teaching.tasks.explained import ExplainedTask

VARIANTS = ("paper", "released")


class Observed(NamedTuple):
    """A training item as this student met it, alone and with a human explanation."""

    item: Item
    alone: Outcome
    helped: Outcome


def confidence(model: LanguageModel, prompts: Sequence[str], items: Sequence[Item]) -> np.ndarray:
    """The probability of each item's right answer after its prompt, and the largest of any, [n, 2].

    Over an item's options, normalised; where the answer is free, the geometric mean over the
    tokens of the right one, for both.
    """
    if all(item.options for item in items):
        require(model, "choices")
        options = dict.fromkeys(item.options for item in items)
        confidences = np.zeros((len(items), 2))
        for each in options:
            at = [i for i, item in enumerate(items) if item.options == each]
            of_these = [prompts[i] for i in at]
            p = np.exp(model.choices(of_these, [f" {option}" for option in each]))
            right = [each.index(items[i].answer) for i in at]
            confidences[at] = np.stack([p[np.arange(len(at)), right], p.max(axis=1)], axis=1)
        return confidences
    require(model, "score")
    scores = model.score(prompts, [f" {item.answer}" for item in items])
    means = np.exp([score.log_probability / score.tokens for score in scores])
    return np.stack([means, means], axis=1)


@dataclasses.dataclass(frozen=True)
class MentalModel:
    """A language model that simulates a student by examples of it.

    Attributes:
      variant: "paper" shows the student's own explanation before its answer, and simulates one;
        "released" shows its answer alone, and in ECQA not the right answer either.
    """

    model: LanguageModel
    task: ExplainedTask
    examples: Sequence[Observed]
    variant: str = "paper"

    def __post_init__(self):
        check_known("variant", self.variant, VARIANTS)

    def pre(self, items: Sequence[Item]) -> np.ndarray:
        """The simulated probability that the student is right alone, [n]."""
        prompts = [self._prompt(item) for item in items]
        if self.variant == "paper":
            drafts = self.model.generate(prompts, max_tokens=100, stop=("\n",))
            prompts = [
                f"{prompt} {self.task.without_answer(draft[0].text)} {self.task.lead}"
                for prompt, draft in zip(prompts, drafts, strict=True)
            ]
        return confidence(self.model, prompts, items)[:, 0]

    def post(self, items: Sequence[Item], explanations: Mapping[str, str]) -> np.ndarray:
        """The simulated probability that it is right with these explanations, [n]."""
        prompts = [
            f"{self._prompt(item, explanations)} {self.task.handed(explanations[item.key])} "
            f"{self.task.lead}"
            for item in items
        ]
        return confidence(self.model, prompts, items)[:, 0]

    def _prompt(self, item: Item, explanations: Mapping[str, str] | None = None) -> str:
        helped = explanations is not None
        blocks = [self._block(e.item, self._said(e, helped), helped) for e in self.examples]
        head = "Foresee what an AI model answers, right or wrong."
        return "\n\n".join([head, *blocks, self._block(item, "", helped)])

    def _said(self, example: Observed, helped: bool) -> str:
        outcome = example.helped if helped else example.alone
        answer = outcome.answer or "nothing"
        if helped:
            shown = self.task.handed(example.item.extra["explanation"])
            return f" {shown} {self.task.lead} {answer}"
        if self.variant == "released":
            return f" {answer}"
        return f" {self.task.without_answer(outcome.text)} {self.task.lead} {answer}"

    def _block(self, item: Item, said: str, helped: bool) -> str:
        hidden = self.variant == "released" and self.task.name == "ecqa" and not helped
        right = "" if hidden else f"\nCorrect Answer: {item.answer}"
        return f"{self.task.question(item)}{right}\nAI Predicted Answer:{said}"
