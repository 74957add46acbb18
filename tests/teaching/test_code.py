"""The code task: right programs pass, and what a program must not do it cannot."""

import time

import pytest

from language import scripted
from teaching.sandbox import run
from teaching.students import LanguageStudent
from teaching.tasks.code import PROBLEMS, Code

# ruff: noqa: E501
SOLUTIONS = {
    "digit_sum": "return sum(map(int, str(abs(n))))",
    "collatz_steps": "k = 0\n    while n > 1:\n        n, k = (n // 2 if n % 2 == 0 else 3 * n + 1), k + 1\n    return k",
    "is_perfect": "return n == sum(d for d in range(1, n) if n % d == 0)",
    "vowels": "return sum(c in 'aeiou' for c in text.lower())",
    "initials": "return ''.join(w[0].upper() + '.' for w in name.split())",
    "run_lengths": "import itertools\n    return [(k, len(list(g))) for k, g in itertools.groupby(text)]",
    "flatten": "return [y for x in nested for y in (flatten(x) if isinstance(x, list) else [x])]",
    "second_largest": "v = sorted(set(values))\n    return v[-2] if len(v) > 1 else None",
    "rotate": "k = k % len(values) if values else 0\n    return values[-k:] + values[:-k] if k else list(values)",
    "count_words": "w = text.lower().split()\n    return {x: w.count(x) for x in w}",
    "invert": "return {v: sorted(k for k in mapping if mapping[k] == v) for v in mapping.values()}",
    "merge_counts": "s = {k: first.get(k, 0) + second.get(k, 0) for k in {**first, **second}}\n    return {k: v for k, v in s.items() if v}",
}  # fmt: skip
ITEMS = Code().items()


def test_a_dozen_problems_that_can_be_solved():
    assert len(PROBLEMS) == 12 and len({item.skill for item in ITEMS}) == 4
    for item in ITEMS:
        verdict = run(f"{item.question}    {SOLUTIONS[item.key]}\n", item.extra["tests"])
        assert verdict.passed, (item.key, verdict)


TESTS = ["f() == 1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 2", "wrong: f() == 1"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("import socket\n    socket.socket()\n    return 1", "refused: socket"),
        ("import urllib.request as u\n    u.urlopen('http://127.0.0.1:1')", "refused|Error"),
        ("open('x', 'w').write('x')\n    return 1", "refused: open"),
        ("import os\n    os.open('x', os.O_CREAT | os.O_WRONLY)\n    return 1", "refused: open"),
        ("import os\n    os.system('true')\n    return 1", "refused: os.system"),
        ("import subprocess\n    subprocess.run(['true'])\n    return 1", "refused"),
        ("import os\n    os.fork()\n    return 1", "refused: os.fork"),
        ("x = bytearray(2 * 10**9)\n    return 1", "MemoryError"),
        ("import sys\n    sys.exit(0)", "SystemExit"),
        ("import os\n    os._exit(0)", "ended by itself"),
        ("return f()", "RecursionError"),
    ],
)
def test_what_a_program_must_not_do(body, reason):
    verdict = run(f"def f():\n    {body}\n", TESTS)
    assert not verdict.passed
    assert any(part in verdict.reason for part in reason.split("|")), verdict


@pytest.mark.parametrize("body", ["while True: pass", "import time\n    time.sleep(60)"])
def test_time_is_limited(body):
    start = time.monotonic()
    assert run(f"def f():\n    {body}\n", TESTS, seconds=1).reason == "out of time"
    assert time.monotonic() - start < 20


def test_printing_is_no_passing():
    assert not run("print('passed')\ndef f():\n    return 2\n", TESTS).passed
    assert run("print('x' * 10**6)\ndef f():\n    return 1\n", TESTS).passed
    assert run("def f(:\n", TESTS).reason.startswith("SyntaxError")


def test_programs_are_read_from_what_models_write():
    task, item = Code(), next(i for i in ITEMS if i.key == "vowels")
    continued = f"    {SOLUTIONS['vowels']}\n\nprint(vowels('a'))\n"
    assert task.parse(continued, item) == f"{item.question}    {SOLUTIONS['vowels']}"
    fenced = f"Sure:\n```python\n{item.question}    return 0\n```\nDone."
    assert task.parse(fenced, item) == f"{item.question}    return 0\n"
    assert task.parse("I cannot.", item) is None and task.parse("", item) is None
    model = scripted.open(
        lambda prompt, rng: f"    {SOLUTIONS['vowels']}\n" if "vowels" in prompt else "no"
    )
    outcomes = LanguageStudent(model, task).answer([item, ITEMS[0]])
    assert [o.correct for o in outcomes] == [True, False] and outcomes[1].answer is None
