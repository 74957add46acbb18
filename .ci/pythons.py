"""Prints the newest Python here, other than this one, that setup.py promises; or nothing.

Looks on the PATH and among pyenv's. tests/test_pythons.py holds the table in CONTRIBUTING.md.
"""

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def promised() -> list[tuple[int, int]]:
    """The minor releases that setup.py's python_requires allows."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    low, high = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', text).groups()
    return [(3, minor) for minor in range(int(low), int(high))]


def find(version: tuple[int, int]) -> str | None:
    """An interpreter of that release."""
    name = "python{}.{}".format(*version)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    inside = sorted(pyenv.glob("{}.{}.*/bin/python".format(*version)))
    return str(inside[-1]) if inside else shutil.which(name)


def main() -> None:
    others = [version for version in promised() if version != sys.version_info[:2]]
    found = [path for version in others if (path := find(version))]
    print(found[-1] if found else "")


if __name__ == "__main__":
    main()
