"""Questions whose answers come with an explanation, in the form of arXiv 2306.09299.

`Q: question / A: explanation So the answer is yes`, blocks apart by an empty line.
"""

import re

from teaching.base import Item, Task

# "So the answer is yes." is the end of an explanation only by its full stop (a leak of the released
# code): what is handed over ends before it.
_GIVEN_AWAY = re.compile(
    r"(?:\b(?:so|thus|hence|therefore)\b,?\s*)?\bthe\s+(?:correct\s+|final\s+)*(?:answer|choice|option)"
    r"\s+(?:is|must be)\b|####",
    re.IGNORECASE,
)


class ExplainedTask(Task):
    """Explanation first, then the lead, then the answer; extra["explanation"] is a human's."""

    lead = "So the answer is"

    def question(self, item: Item) -> str:
        return f"Q: {item.question}"

    def handed(self, explanation: str) -> str:
        """How much of an explanation is handed over with the question."""
        return self.without_answer(explanation)

    def without_answer(self, explanation: str) -> str:
        """An explanation up to where it gives the answer in the form of one."""
        return _GIVEN_AWAY.split(explanation)[0].strip()

    def leaks(self, explanation: str) -> bool:
        """Whether an explanation gives an answer in the form of one, right or wrong."""
        return bool(_GIVEN_AWAY.search(explanation))

    def render(self, item, demos=(), help=None):
        blocks = [
            f"{self.question(d)}\nA: {d.extra['explanation']} {self.lead} {d.answer}" for d in demos
        ]
        ask = "" if help is None else f" {self.handed(help)} {self.lead}".replace("  ", " ")
        return "\n\n".join([*blocks, f"{self.question(item)}\nA:{ask}"])

    def parse(self, text, item, help=None):
        line = text.strip().partition("\n")[0]
        # Handed an explanation, the answer is next; else it stands at the end of one's own.
        said = line if help is not None else re.split(re.escape(self.lead), line)[-1]
        return self.read(said.strip(), item, first=help is not None)

    def read(self, said: str, item: Item, first: bool) -> str | None:
        """The answer in words that hold it: the first word of them, or the last."""
        words = re.findall(r"[\w'-]+", said.lower())
        word = words[0 if first else -1] if words else None
        return word if word in item.options else None

    def again(self, item, demos, text):
        line = text.strip().partition("\n")[0]
        # Up to the last full stop; all of it where the end was cut off before the first.
        explanation = line[: line.rfind(".") + 1] or line
        return self.render(item, demos, explanation), explanation
