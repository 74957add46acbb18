"""Each fault of the table once; a hundred of them: python -m tests.training.faults."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gcp_storage_emulator")


@pytest.mark.slow
def test_nothing_is_lost():
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.faults", "--runs=11"],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("JAX_")},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("all "))
    assert line.split()[1:3] == ["11", "0"]
