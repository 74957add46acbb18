"""Forks in one file each: a copy of the repository takes them in, and nothing else changes."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FORKS = sorted(
    path for path in Path(__file__).parent.glob("*/*.py") if path.parent.name != "__pycache__"
)
ROOMS = sorted(
    path.name for path in ROOT.iterdir() if any(path.glob("*.py")) and path.name != "tests"
)


@pytest.fixture(scope="module")
def fork(tmp_path_factory) -> Path:
    """The repository with every fork's file in its room."""
    copy = tmp_path_factory.mktemp("fork")
    ignore = shutil.ignore_patterns("__pycache__")
    for room in (*ROOMS, "weights", "tests"):
        shutil.copytree(ROOT / room, copy / room, ignore=ignore)
    for path in [*ROOT.glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(path, copy)
    for path in FORKS:
        shutil.copy(path, copy / path.parent.name)
    return copy


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Two tar files of eight images with two captions each."""
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(root / f"{shard}.tar", "w") as tar:
            for i in range(8):
                image = io.BytesIO()
                pixels = rng.integers(0, 256, (72, 80, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(image, "JPEG")
                text = f"a red dog number {i} on a mat\na cat near a wall of shard {shard}\n"
                for kind, content in (("jpg", image.getvalue()), ("txt", text.encode())):
                    entry = tarfile.TarInfo(f"{i}.{kind}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return root


def in_fork(fork: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=fork, env=environment, capture_output=True, text=True
    )


def train(fork: Path, shards: Path, workdir: Path, **changes) -> subprocess.CompletedProcess:
    """A tiny experiment with all forks, their options from the command line."""
    options = {
        "batch_size": 8,
        "total_steps": 2,
        "log_every_steps": 1,
        "model.name": "tiny",
        "optimizer.warmup_steps": 1,
        "method.name": "fsc_local",
        "method.options.local_weight": 0.5,
        "data.source": "tar_shards",
        "data.root": shards,
        "data.options.pattern": "*.tar",
        "data.split": "train",
        "data.test_size": 4,
        "data.negatives": "rules",
        "data.tokenizer_vocab_size": 600,
        "eval.benchmarks": "caption_margin",
        "eval.batch_size": 16,
        "eval.caption_margin.margin": -3.0,
        "eval.caption_margin.kinds": "('swap_nouns','replace_noun')",
        **changes,
    }
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    config = "--config=tpu_configs/base.py"
    return in_fork(fork, "train.py", config, f"--workdir={workdir}", *flags)


@pytest.mark.slow
def test_forks_run_from_their_one_file_with_their_options(fork, shards, tmp_path):
    result = train(fork, shards, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "12 records" in result.stderr
    rows = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 2
    for row in steps:
        np.testing.assert_allclose(row["loss"], row["negclip"] + 0.5 * row["local"], rtol=1e-5)
    (scores,) = (row for row in rows if "caption_margin/swap_nouns" in row)
    # No two cosines differ by more than 2: the margin has arrived, and the kinds.
    assert scores["caption_margin/swap_nouns"] == scores["caption_margin/replace_noun"] == 100
    assert sum(name.startswith("caption_margin/") for name in scores) == 2


@pytest.mark.parametrize(
    "option, problem",
    [
        ("method.options.local_wieght", "local_weight"),
        ("data.options.patern", "pattern"),
        ("eval.caption_margin.magrin", "margin"),
    ],
)
def test_an_option_that_a_fork_does_not_have_is_one_line(fork, shards, tmp_path, option, problem):
    result = train(fork, shards, tmp_path, **{option: 1})
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert option.rpartition(".")[2] in line and problem in line


@pytest.mark.slow
def test_a_model_of_its_own_trains_goes_on_and_is_scored(fork, shards, tmp_path):
    options = {"model.name": "gated_clip", "model.gates": 8, "eval.benchmarks": ""}
    for steps in (2, 2):  # the second time there is nothing left to do: the run is known again
        result = train(fork, shards, tmp_path, **options, total_steps=steps)
        assert result.returncode == 0, result.stderr
    stamp = json.loads((tmp_path / "fingerprint.json").read_text())
    assert stamp["model"] == "gated_clip" and stamp["gates"] == 8
    flags = ("--eval.benchmarks=world", "--eval.world.scenes=8", "--eval.world.per_class=1")
    result = in_fork(fork, "eval.py", f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0 and "composition" in result.stdout, result.stderr
    result = train(fork, shards, tmp_path / "other", **options | {"model.gate": 4})
    (line,) = result.stderr.strip().splitlines()
    assert "option of model gated_clip 'gate' (nearest: gates)" in line


STARTED = """
import jax, numpy as np
from pretrained.load import load_weights
from tpu_configs import base
from trainer import Run

config = base.get_world_config()
config.update_from_flattened_dict({"model.name": "gated_clip", "method.name": "clip"})
config.model.shape = "world"
ours, theirs = Run.open(config).first_params(), load_weights(base.WORLD_WEIGHTS).params
gate = ours.pop("gate")
jax.tree.map(np.testing.assert_array_equal, ours, theirs)
print("started", gate)
"""


def test_a_model_of_its_own_starts_from_the_weights_of_a_clip(fork):
    result = in_fork(fork, "-c", STARTED)
    assert "started [1. 1. 1. 1.]" in result.stdout, result.stderr


@pytest.mark.slow
def test_the_contract_covers_a_forks_method(fork):
    chosen = "fsc_local and (needed or finite or teacher or empty)"
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_contract.py")
    result = in_fork(fork, *command, "-k", chosen)
    assert "4 passed" in result.stdout, result.stdout


def test_no_file_of_the_core_names_a_fork():
    names = {path.stem for path in FORKS}
    assert names == {"fsc_local", "tar_shards", "caption_margin", "gated_clip"}
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    for path in [*files, *ROOT.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if name in text], path


@pytest.mark.parametrize("path", FORKS, ids=lambda path: path.stem)
def test_a_fork_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
