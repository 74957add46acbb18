"""Answers in mathematics: read from the known forms of solutions, and compared as values."""

import re
from fractions import Fraction

ANNOTATION = re.compile(r"<<([^<>]*)=([^<>=]*)>>")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
SIGNED = re.compile(f"-?(?:{NUMBER.pattern})")
_HEADS = ("[[Final Answer]]:", "Final Answer: The final answer is", "the final answer is")


def exact(text: str) -> Fraction:
    """A number as it is written: commas, a currency sign, a trailing point."""
    return Fraction(text.replace(",", "").replace("$", "").strip().rstrip("."))


def boxed(text: str) -> str | None:
    r"""What the last \boxed{..} or \fbox{..} holds, braces within it counted; None without one."""
    for match in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))):
        start, depth = match.end(), 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                return text[start:end].strip()
    return None


def read_answer(text: str) -> str | None:
    """The answer: after a head where one stands, within the last box, or None.

    A head's line that holds a box is read within it, so that both forms together count, too.
    """
    for head in _HEADS:
        at = text.lower().rfind(head.lower())
        if at >= 0:
            line = text[at + len(head) :].strip().partition("\n")[0]
            line = line.partition("I hope it is correct")[0].strip()
            if line:
                return boxed(line) or line.strip("$ ").rstrip(".").strip("$ ") or None
    return boxed(text)


def normalise(answer: str) -> str:
    """One spelling for one value, as far as spelling goes (Minerva's rules, in short)."""
    text = answer.strip().strip("$").replace("\\!", "").replace("\\$", "").replace("\\%", "")
    text = re.sub(r"\\(?:left|right|,|;|:|displaystyle)(?![a-z])", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm|textrm)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\s*(?:\\circ|\{\\circ\})", "", text).replace("%", "")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"^[a-zA-Z]\s*=\s*", "", text)
    return re.sub(r"\s+", "", text).rstrip(".")


def value(text: str) -> Fraction | None:
    """The rational number that a normalised answer is, or None."""
    match = re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}", text)
    try:
        if match:
            return Fraction(int(match[2]), int(match[3])) * (-1 if match[1] else 1)
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def equivalent(a: str, b: str) -> bool:
    r"""Whether two answers are one: .25 and \frac14 are; "issue" and "is" are not."""
    a, b = normalise(a), normalise(b)
    return a == b or (value(a) is not None and value(a) == value(b))
