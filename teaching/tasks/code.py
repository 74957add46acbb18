"""A dozen small programs to write, graded by their tests (teaching/sandbox.py)."""

import dataclasses
import itertools
import re

from teaching import sandbox
from teaching.base import Item, Task

# name: (skill, signature, what it does, tests)
PROBLEMS = {
    "digit_sum": (
        "numbers", "n", "the sum of the decimal digits of an integer of either sign",
        ["digit_sum(0) == 0", "digit_sum(1203) == 6", "digit_sum(-45) == 9"],
    ),
    "collatz_steps": (
        "numbers", "n", "how many steps the Collatz rule takes from n >= 1 to 1",
        ["collatz_steps(1) == 0", "collatz_steps(6) == 8", "collatz_steps(27) == 111"],
    ),
    "is_perfect": (
        "numbers", "n", "whether n >= 1 is the sum of its divisors that are less than n",
        ["is_perfect(6)", "is_perfect(28)", "not is_perfect(1)", "not is_perfect(12)"],
    ),
    "vowels": (
        "strings", "text", "how many of a, e, i, o, u a text has, in either case",
        ["vowels('') == 0", "vowels('Education') == 5", "vowels('XYZ') == 0"],
    ),
    "initials": (
        "strings", "name", "the first letters of a name's words, in upper case, each with a point",
        ["initials('ada king lovelace') == 'A.K.L.'", "initials('') == ''"],
    ),
    "run_lengths": (
        "strings", "text", "pairs of each run's letter and length, in order",
        ["run_lengths('') == []", "run_lengths('aab') == [('a', 2), ('b', 1)]",
         "run_lengths('abba') == [('a', 1), ('b', 2), ('a', 1)]"],
    ),
    "flatten": (
        "lists", "nested", "the elements of lists within lists of any depth, as one list",
        ["flatten([]) == []", "flatten([1, [2, [3, []]], 4]) == [1, 2, 3, 4]"],
    ),
    "second_largest": (
        "lists", "values", "the second largest of the distinct values, or None",
        ["second_largest([3, 1, 3, 2]) == 2", "second_largest([5, 5]) is None",
         "second_largest([-1, -2]) == -2"],
    ),
    "rotate": (
        "lists", "values, k", "the list turned k places to the right; k may be negative or large",
        ["rotate([1, 2, 3], 1) == [3, 1, 2]", "rotate([1, 2, 3], -4) == [2, 3, 1]",
         "rotate([], 2) == []"],
    ),
    "count_words": (
        "dictionaries", "text", "a dictionary of each word's count, words in lower case",
        ["count_words('') == {}", "count_words('A dog a cat') == {'a': 2, 'dog': 1, 'cat': 1}"],
    ),
    "invert": (
        "dictionaries", "mapping", "each value with the sorted list of its keys",
        ["invert({}) == {}", "invert({'b': 1, 'a': 1, 'c': 2}) == {1: ['a', 'b'], 2: ['c']}"],
    ),
    "merge_counts": (
        "dictionaries", "first, second", "the sums of two dictionaries of counts, without zeros",
        ["merge_counts({'a': 1}, {'a': 2, 'b': 3}) == {'a': 3, 'b': 3}",
         "merge_counts({'a': 1}, {'a': -1}) == {}"],
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Code(Task):
    """Functions to write, graded by their tests; a demonstration's answer is its program."""

    name: str = "code"
    seconds: int = sandbox.SECONDS

    def items(self, split: str = "test") -> list[Item]:
        return [
            Item(
                key=name,
                skill=skill,
                question=f'def {name}({arguments}):\n    """Returns {what}."""\n',
                answer="",
                extra={"tests": tests},
            )
            for name, (skill, arguments, what, tests) in PROBLEMS.items()
        ]

    def render(self, item, demos=(), help=None):
        blocks = [f"{demo.question}{demo.answer}\n\n" for demo in demos]
        hint = f"# {help}\n" if help else ""
        return "".join([*blocks, hint, item.question])

    def parse(self, text, item, help=None):
        """The function: a fenced block that defines it, or the lines that continue the prompt."""
        name = re.match(r"def (\w+)", item.question)[1]
        for block in re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL):
            if re.search(rf"^def {name}\b", block, re.MULTILINE):
                return block
        indented = itertools.takewhile(re.compile(r"\s|$").match, text.split("\n"))
        body = "\n".join(indented).rstrip()
        return item.question + body if body.strip() else None

    def grade(self, answer, item):
        return sandbox.run(answer, item.extra["tests"], self.seconds).passed
