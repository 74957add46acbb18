"""setup.py promises no Python on which the last release was not run (CONTRIBUTING.md, Pythons)."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = runpy.run_path(str(ROOT / ".ci" / "pythons.py"))


def rows() -> dict[tuple[int, int], list[str]]:
    """Of the table: Python -> release, jax, flax, how many tests passed."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (3)\.(\d+) \|(.*)\|$", text, flags=re.MULTILINE)
    return {(int(a), int(b)): [cell.strip() for cell in rest.split("|")] for a, b, rest in lines}


def test_every_promised_python_was_run_in_the_last_release():
    (version,) = re.findall(r'version="(.*?)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    table = rows()
    assert list(table) == PYTHONS["promised"]()
    for python, (release, *_) in table.items():
        assert release == version, f"{python} was not run in {version}: run it or do not promise it"
    # All of them, on each: the slow ones that others leave out are few.
    passed = [int(row[-1].replace(",", "")) for row in table.values()]
    assert min(passed) > 0.85 * max(passed)


def test_versions_that_were_run_are_within_the_bounds():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    for _, jax, flax, _ in rows().values():
        for name, found in (("jax", jax), ("flax", flax)):
            low, high = re.search(rf'"{name}>=([\d.]+),<([\d.]+)"', text).groups()
            low, found, high = (tuple(map(int, v.split("."))) for v in (low, found, high))
            assert low <= found < high, name
