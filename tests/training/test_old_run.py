"""A run directory of an older version goes on as it would have there (tests/golden/make_run.py)."""

import json
import shutil
from pathlib import Path

import pytest

from models import zoo
from tests.golden import make_run
from tpu_configs import base
from train import train

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    monkeypatch.setitem(zoo.SHAPES, "tiny", make_run.small_shape(zoo))
    return shutil.copytree(GOLDEN / "run", tmp_path / "run")


@pytest.mark.slow
def test_an_older_run_is_resumed_with_the_losses_that_it_would_have_had(old_run):
    train(make_run.experiment(base, make_run.STEPS), old_run)
    expected = json.loads((GOLDEN / "losses.json").read_text())
    assert make_run.losses(old_run) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("section", "key", "value", "difference"),
    [
        ("optimizer", "learning_rate", 2e-2, "optimizer.learning_rate: 0.01 there, 0.02 here"),
        # A key that it did not have yet is worth its default.
        ("train", "learn", ("text/*",), r"train.learn: .* there, \['text/\*'\] here"),
    ],
)
def test_what_an_older_run_did_otherwise_is_a_difference(old_run, section, key, value, difference):
    config = make_run.experiment(base, make_run.STEPS)
    config[section][key] = value
    with pytest.raises(ValueError, match=f"{difference}$"):
        train(config, old_run)
