"""perf/versions.py finds the commit to compare with, or says that there is none."""

import pytest

from errors import UserError
from perf import versions


def test_a_checkout_has_the_files_of_its_commit():
    with versions.checkout("HEAD") as folder:
        assert (folder / "perf" / "step.py").is_file() and not (folder / ".git").exists()


def test_an_unknown_commit_is_named():
    with pytest.raises(UserError, match="--before=nowhere: .*nowhere"):
        with versions.checkout("nowhere"):
            pass
