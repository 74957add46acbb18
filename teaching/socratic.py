"""The text form of weak_to_strong.py: GSM8K Socratic, and exact errors in its steps' numbers."""

import ast
import dataclasses
import operator
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from errors import UserError
from files import read_records
from teaching.answers import ANNOTATION, NUMBER, SIGNED, exact

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_ATTEMPTS = 50


def evaluate(expression: str) -> Fraction:
    """An arithmetic expression in rational numbers.

    Raises:
      ValueError: anything but numbers and + - * / // % **, or a division by zero.
    """

    def walk(node):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return Fraction(str(node.value))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return walk(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = walk(node.left), walk(node.right)
            if isinstance(node.op, ast.Pow) and abs(right) > 64:
                raise ValueError(f"an exponent of {right}")
            return Fraction(_OPERATORS[type(node.op)](left, right))
        raise ValueError(f"no arithmetic: {ast.unparse(node)}")

    try:
        return walk(
            ast.parse(expression.replace(",", "").replace("$", "").strip(), mode="eval").body
        )
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(f"{expression!r} is no arithmetic: {error}") from None


def written(value: Fraction) -> str | None:
    """A number in at most four decimals; None if it has more."""
    if (value * 10_000).denominator != 1:
        return None
    text = f"{float(value):.4f}".rstrip("0").rstrip(".")
    return text if Fraction(text) == value else str(value.numerator)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A word problem, the questions of its steps, and each step's text with annotations.

    Attributes:
      decides: which annotation, counted over all steps, gives the answer.
    """

    key: str
    question: str
    subquestions: tuple[str, ...]
    steps: tuple[str, ...]
    answer: Fraction
    decides: int

    @property
    def annotations(self) -> list[re.Match]:
        return [match for step in self.steps for match in ANNOTATION.finditer(step)]


def read_socratic(path: Path) -> tuple[list[Problem], Counter]:
    """Problems whose answer one of their annotations gives, and how many others, by reason.

    Raises:
      ValueError, OSError: a line of another layout; it is named.
    """
    problems, left_out = [], Counter()
    for line, (where, row) in enumerate(read_records(path, ("question", "answer")), 1):
        body, marker, answer = row["answer"].rpartition("####")
        pairs = [each.split(" ** ", 1) for each in body.strip().split("\n") if each.strip()]
        if not marker or any(len(pair) != 2 for pair in pairs):
            raise UserError(f"{where}: no lines of 'question ** step', then '#### x'")
        problem = Problem(str(line), row["question"], *zip(*pairs, strict=True), exact(answer), -1)
        results = [exact(match[2]) for match in problem.annotations]
        if not results:
            left_out["no annotation"] += 1
        elif problem.answer not in results:
            left_out["no annotation gives the answer"] += 1
        elif not all(_said(step, m) for step in problem.steps for m in ANNOTATION.finditer(step)):
            left_out["a result is not written after its annotation"] += 1
        else:
            decides = len(results) - 1 - results[::-1].index(problem.answer)
            problems.append(dataclasses.replace(problem, decides=decides))
    return problems, left_out


def corrupt(
    problem: Problem, wrong: Sequence[int], rng: np.random.Generator, propagate: bool = False
) -> Problem:
    """Gives the annotations numbered in `wrong` a wrong result.

    Args:
      propagate: calculate on with the wrong results, as a person would; otherwise only these
        annotations change, and the answer if the one that decides it is among them.

    Raises:
      ValueError: no such annotation, or results that cannot be written in four decimals.
    """
    if not set(wrong) <= set(range(len(problem.annotations))):
        raise ValueError(f"problem {problem.key} has no annotations {sorted(wrong)}")
    for _ in range(_ATTEMPTS if propagate else 1):
        changed = _corrupted(problem, frozenset(wrong), rng, propagate)
        if changed:
            return changed
    raise ValueError(f"problem {problem.key}: errors at {sorted(wrong)} give no round numbers")


def _corrupted(problem: Problem, wrong: frozenset, rng, propagate: bool) -> Problem | None:
    new: dict[Fraction, str] = {}  # a result of before -> as it is now
    number, answer, steps = 0, problem.answer, []

    def renewed(text: str) -> str:
        return NUMBER.sub(lambda m: new.get(exact(m[0]), m[0]), text) if propagate else text

    for step in problem.steps:
        parts, end = [], 0
        for match in ANNOTATION.finditer(step):
            expression, before = renewed(match[1]), exact(match[2])
            try:
                value = evaluate(expression) if expression != match[1] else before
            except ValueError:
                return None  # a wrong result may divide by zero
            if number in wrong:
                # What follows from wrong results may not be round; a wrong one is.
                near = Fraction(round(value)) if written(value) is None else value
                value = _another(near, before, rng)
            text = written(value)
            if text is None:
                return None
            if value != before:
                new[before] = text
            elif propagate:
                new.pop(before, None)
            if number == problem.decides:
                answer = value
            parts += [renewed(step[end : match.start()]), f"<<{expression}={text}>>"]
            end = match.end()
            said = _said(step, match)
            if said and value != before:
                parts.append(step[end : said.start()] + text)
                end = said.end()
            number += 1
        steps.append("".join([*parts, renewed(step[end:])]))
    return dataclasses.replace(problem, steps=tuple(steps), answer=answer)


def _said(step: str, annotation: re.Match) -> re.Match | None:
    """Where the text repeats a result after its annotation, behind a currency sign or none."""
    sign = re.compile(r"\s*\$?").match(step, annotation.end())
    said = SIGNED.match(step, sign.end())
    return said if said and exact(said[0]) == exact(annotation[2]) else None


def _another(value: Fraction, before: Fraction, rng: np.random.Generator) -> Fraction:
    """A result near the right one that is neither it nor the one of before, and not negative."""
    while True:
        offset = Fraction(int(rng.integers(1, 11)) * (1 if rng.random() < 0.5 else -1))
        if value + offset != before and (value + offset >= 0 or value < 0):
            return value + offset


def step_errors(problem: Problem) -> int:
    """How many annotations do not say what their expression evaluates to."""
    return sum(evaluate(m[1]) != exact(m[2]) for m in problem.annotations)


def plain(step: str) -> str:
    """A step without its annotations."""
    return ANNOTATION.sub("", step)
