"""A teacher whose material is tuned to its student's preferences (ARTE, arXiv 2406.19227).

Drafts are scored by how much they help this student on a preference set, which item response
theory picks; scores become pairs, and the teacher learns from them by DPO. In text a draft helps as
the one example of a prompt; of a CLIP the gradient is at hand, see teaching/usefulness.py.

`python -m teaching.arte score --workdir=RUN --negatives=negatives.json --images=DIR --out=FILE`
ranks a set of written negatives by their usefulness to a model.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from errors import UserError
from language.base import LanguageModel
from teaching import irt
from teaching.base import Item, Record, Student, Task
from teaching.score import main

DRAFTS = 250
RATIONALES = 4
TEMPERATURE = 1.0
PREFERENCE_ITEMS = 40
LEAST_GAP = 2 / PREFERENCE_ITEMS  # scores are multiples of 1/40: a smaller gap is a tie
PAIRS = 50
# Techniques that a rationale is asked for by; wording ours.
TECHNIQUES = (
    "Work in a fixed order: list what is known, what is asked, then each step, then check it.",
    "You are an expert: first recall the rules of the field that apply, then use them.",
    "{description}",
    "Go through the possible answers and rule out those that cannot be.",
)
_DRAFT = re.compile(r"<input>(.*?)</input>\s*<target>(.*?)</target>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def preference_set(responses: np.ndarray, items: Sequence[Item], k: int) -> list[Item]:
    """The k items that tell respondents apart best, in their order.

    Args:
      responses: [respondents, items], 1 where right.
    """
    chosen = irt.most_discriminating(irt.fit_2pl(responses), k)
    return [items[i] for i in sorted(chosen)]


class Draft(NamedTuple):
    """A question, its target, and rationales with their preference scores."""

    question: str
    target: str
    rationales: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """Of the question: the mean over its rationales."""
        return float(np.mean(self.scores))


def draft_prompt(description: str, seeds: Sequence[Item], count: int = 5) -> str:
    """Asks for more questions like three seeds, in tags."""
    shown = "\n".join(
        f"{i}. <input>{s.question}</input> <target>{s.answer}</target>"
        for i, s in enumerate(seeds, 1)
    )
    return f"Task: {description}\n{shown}\nWrite {count} more, in the same form.\n"


def draft_questions(
    model: LanguageModel,
    description: str,
    seeds: Sequence[Item],
    count: int = DRAFTS,
    most_calls: int = 500,
    seed: int = 0,
) -> tuple[list[Draft], Counter]:
    """Distinct questions with targets, until there are enough; and what was discarded, by reason.

    Raises:
      UserError: there are not enough after so many calls.
    """
    drafts: dict[str, Draft] = {}
    discarded = Counter()
    known = {" ".join(s.question.split()) for s in seeds}
    prompt = draft_prompt(description, seeds)
    for call in range(most_calls):
        text = model.generate(
            [prompt], temperature=TEMPERATURE, max_tokens=800, seed=seed * most_calls + call
        )[0][0].text
        parts = _DRAFT.findall(text)
        discarded["no pair of tags"] += text.count("<input>") - len(parts) or not parts
        for question, target in parts:
            question, target = " ".join(question.split()), " ".join(target.split())
            if not question or not target:
                discarded["empty"] += 1
            elif question in drafts or question in known:
                discarded["duplicate"] += 1
            else:
                drafts[question] = Draft(question, target)
        if len(drafts) >= count:
            return list(drafts.values())[:count], +discarded
    raise UserError(f"{len(drafts)} of {count} drafts after {most_calls} calls: {dict(+discarded)}")


def rationale_prompt(description: str, question: str, technique: str = "") -> str:
    """Asks for a solution that ends in an answer tag; without a technique, the prompt to learn."""
    head = technique.format(description=description)
    head = f"{head}\n" if head and head != description else ""
    return (
        f"{head}Task: {description} End with the answer in <answer></answer>.\n"
        f"Question: {question}\nLet's think step by step."
    )


def draft_rationales(
    model: LanguageModel, description: str, drafts: Sequence[Draft], seed: int = 0
) -> list[Draft]:
    """Drafts with a rationale by each technique."""
    prompts = [rationale_prompt(description, d.question, t) for d in drafts for t in TECHNIQUES]
    answers = model.generate(prompts, temperature=TEMPERATURE, max_tokens=400, seed=seed)
    texts = [each[0].text.strip() for each in answers]
    n = len(TECHNIQUES)
    return [
        draft._replace(rationales=tuple(texts[i * n : (i + 1) * n]))
        for i, draft in enumerate(drafts)
    ]


def read_answer(text: str) -> str | None:
    """The text in the last answer tag."""
    answers = _ANSWER.findall(text)
    return answers[-1].strip() if answers else None


@dataclasses.dataclass(frozen=True)
class Tagged(Task):
    """A task whose answers stand in tags, with one worked example before each question."""

    description: str
    name: str = "tagged"

    def render(self, item, demos=(), help=None):
        shown = "".join(
            f"{rationale_prompt(self.description, d.question)} {d.extra['rationale']}\n\n"
            for d in demos
        )
        return shown + rationale_prompt(self.description, item.question)

    def parse(self, text, item, help=None):
        return read_answer(text)

    def grade(self, answer, item):
        return " ".join(answer.lower().split()) == " ".join(item.answer.lower().split())


def score_drafts(
    drafts: Sequence[Draft], student: Student, preference: Sequence[Item]
) -> list[Draft]:
    """Drafts with a score for each rationale: the student's accuracy with it as the one example."""
    scored = []
    for draft in drafts:
        scores = []
        for rationale in draft.rationales:
            extra = {"rationale": rationale}
            example = Item("draft", "draft", draft.question, draft.target, extra=extra)
            outcomes = student.answer(preference, demos=[example])
            scores.append(float(np.mean([outcome.correct for outcome in outcomes])))
        scored.append(draft._replace(scores=tuple(scores)))
    return scored


def question_pairs(
    drafts: Sequence[Draft],
    prompt: str,
    rng: np.random.Generator,
    count: int = PAIRS,
    gap: float = LEAST_GAP,
) -> list[Record]:
    """{prompt, chosen, rejected}: questions of the top quarter against those of the bottom one."""
    order = sorted(range(len(drafts)), key=lambda i: -drafts[i].score)
    quarter = len(order) // 4
    top, bottom = rng.permutation(order[:quarter]), rng.permutation(order[len(order) - quarter :])

    def written(draft):
        return f"1. <input>{draft.question}</input> <target>{draft.target}</target>"

    pairs = [
        {"prompt": prompt, "chosen": written(drafts[a]), "rejected": written(drafts[b])}
        for a, b in zip(top, bottom, strict=True)
        if round(drafts[a].score - drafts[b].score, 9) >= gap
    ]
    return pairs[:count]


def rationale_pairs(
    drafts: Sequence[Draft], description: str, gap: float = LEAST_GAP
) -> list[Record]:
    """The best against the worst rationale of each question, the technique erased from the prompt.

    No pair where the gap is less: it would be a tie.
    """
    pairs = []
    for draft in drafts:
        best, worst = int(np.argmax(draft.scores)), int(np.argmin(draft.scores))
        if round(draft.scores[best] - draft.scores[worst], 9) >= gap:
            pairs.append(
                {
                    "prompt": rationale_prompt(description, draft.question),
                    "chosen": f" {draft.rationales[best]}",
                    "rejected": f" {draft.rationales[worst]}",
                }
            )
    return pairs


def length_correlation(drafts: Sequence[Draft]) -> float | None:
    """Spearman of score and words over rationales: what scores owe to length; None if undefined."""
    scores = [score for draft in drafts for score in draft.scores]
    words = [len(text.split()) for draft in drafts for text in draft.rationales]
    if len(scores) < 3 or len(set(scores)) < 2 or len(set(words)) < 2:
        return None
    return float(spearmanr(scores, words).statistic)


if __name__ == "__main__":
    main()
