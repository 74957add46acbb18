"""train.py as a user runs it: to the end, killed and started again, in two processes, refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util
from PIL import Image

from pretrained.load import load_weights, save_weights
from tpu_configs import flickr8k_tiny
from train import train
from training.logging import read_metrics

ROOT = Path(__file__).parents[1]
NOUNS = ("dog", "cat", "ball", "boat")
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Forty small pictures with two captions each, in captions.json's layout."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        colour, noun = list(COLOURS)[i % 3], NOUNS[i % 4]
        pixels = np.clip(rng.normal(COLOURS[colour], 20, (72, 96, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.jpg")
        captions = [f"A {colour} {noun} in a small field .", f"a {noun} near the old {colour} wall"]
        rows.append({"image": f"{i}.jpg", "captions": captions})
    (root / "captions.json").write_text(json.dumps(rows))
    return root


# flickr8k_tiny, shortened.
SHORT = {
    "batch_size": 8,
    "total_steps": 6,
    "log_every_steps": 1,
    "optimizer.warmup_steps": 2,
    "data.test_size": 8,
    "data.tokenizer_vocab_size": 600,
    "eval.retrieval.test_size": 8,
    "eval.batch_size": 8,
    "checkpoint.every_steps": 2,
}


def tiny(root: Path, **changes):
    """The short experiment; changes by dotted key."""
    config = flickr8k_tiny.get_config()
    config.data.root = str(root)
    config.update_from_flattened_dict({**SHORT, **changes})
    return config


def losses(workdir: Path) -> dict[int, float]:
    path = workdir / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def command(root: Path, workdir: Path, *flags: str) -> list[str]:
    """The same experiment from the command line."""
    return [
        sys.executable,
        str(ROOT / "train.py"),
        f"--config={ROOT}/tpu_configs/flickr8k_tiny.py",
        f"--config.data.root={root}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in SHORT.items()),
        *flags,
    ]


def environment(devices: int, **more: str) -> dict[str, str]:
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", **more}


def finished(arguments, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False, **kwargs
    )


@pytest.fixture(scope="session")
def whole(photographs, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny(photographs), workdir)
    return workdir


def test_a_dry_run_tells_of_the_run_and_writes_nothing(photographs, whole, tmp_path, capsys):
    config = tiny(photographs, **{"train.learn": ("text/*", "logit_scale"), "mesh.fsdp": 2})
    train(config, tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    told = capsys.readouterr().out
    assert re.search(r"mesh: .*fsdp=2", told)
    assert re.search(r"image +uint8 \[8, 64, 64, 3\]", told)
    sizes = {"learn": 0, "do not": 0}
    for path, leaf in traverse_util.flatten_dict(load_weights(whole).params, sep="/").items():
        learns = path.startswith("text/") or path == "logit_scale"
        sizes["learn" if learns else "do not"] += leaf.size
        shape = re.escape(str(list(leaf.shape)))
        assert re.search(
            rf"^  {'learns ' if learns else '       '}{path} +float32 {shape}$", told, re.M
        )
    assert "parameters: {:,} learn, {:,} do not".format(*sizes.values()) in told
    # Two moments of what learns, of which some leaves are halved by fsdp.
    megabytes = float(re.search(r"optimizer +([\d.]+) MB", told)[1])
    assert 4e-6 * sizes["learn"] < megabytes < 8e-6 * sizes["learn"]


def test_a_run_leaves_what_it_promises(whole):
    assert json.loads((whole / "config.json").read_text())["batch_size"] == 8
    assert (whole / "tokenizer" / "tokenizer.json").is_file()
    rows = list(map(json.loads, (whole / "metrics.jsonl").read_text().splitlines()))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    terms = {"loss", "negclip", "igc", "tgc", "distill", "grad_norm", "logit_scale"}
    speed = {"steps_per_s", "examples_per_s", "learning_rate", "teacher_distance"}
    assert terms | speed | {"truncated", "filled"} <= rows[0].keys()
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["4", "6"]
    assert list((whole / "tensorboard").iterdir())


def test_started_again_it_has_nothing_to_do(photographs, whole):
    before = (whole / "metrics.jsonl").read_bytes()
    train(tiny(photographs), whole)
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_loss(photographs, whole, tmp_path):
    run = command(photographs, tmp_path)
    process = subprocess.Popen(run, env=environment(8), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "checkpoints" / "2").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    result = finished(run, env=environment(8))
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path) == losses(whole)


@pytest.mark.slow
def test_two_processes_train_as_one(photographs, whole, tmp_path):
    launcher = ROOT / "tpu_configs" / "launch" / "local.sh"
    _, *arguments = command(photographs, tmp_path)
    result = finished([launcher, "2", *arguments], env=environment(4, PYTHON=sys.executable))
    assert result.returncode == 0, result.stderr
    ours, theirs = losses(tmp_path), losses(whole)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 2])
def test_another_mesh_and_a_batch_in_parts_give_the_same_losses(
    microbatches, photographs, whole, tmp_path
):
    changes = {"mesh.fsdp": 2, "mesh.tensor": 2, "microbatches": microbatches}
    train(tiny(photographs, **changes), tmp_path)
    np.testing.assert_allclose(
        list(losses(tmp_path).values()), list(losses(whole).values()), rtol=1e-4
    )


@pytest.mark.slow
def test_texts_cut_to_the_longest_train_as_packed_ones(photographs, whole, tmp_path):
    train(tiny(photographs, **{"data.text_rows": ()}), tmp_path)
    np.testing.assert_allclose(
        list(losses(tmp_path).values()), list(losses(whole).values()), rtol=1e-4
    )


REFUSED = {
    "method.name": ("degal", "degla"),
    "model.name": ("tinny", "tiny"),
    "data.source": ("capions", "captions"),
    "data.negatives": ("rule", "records or rules"),
    "data.num_negatives": (0, "needs negatives"),
    "batch_size": (12, "config.batch_size=12 is not divisible"),
    "checkpoint.every_steps": (0, "config.checkpoint.every_steps=0 must be at least 1"),
    "checkpoint.keep_last": (0, "config.checkpoint.keep_last=0 must be at least 1"),
    "optimizer.warmup_steps": (6, "warmup_steps"),
    "mesh.fsdp": (3, "8"),
    "epochs": (2, "config.total_steps, here 6, or config.epochs, here 2"),
    "model.remat": ("some", "dots_no_batch"),
    "model.dtype": ("fp8", "bfloat16"),
    "checkpoint.best_mode": ("least", "min or max"),
    "eval.benchmarks": (("retrieva",), "retrieval"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_wrong_setting_is_refused_before_anything_runs(photographs, tmp_path, key):
    value, hint = REFUSED[key]
    with pytest.raises(ValueError, match=hint) as error:
        train(tiny(photographs, **{key: value}), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_negatives_that_the_data_does_not_have(photographs, tmp_path):
    with pytest.raises(ValueError, match=r"captions.json\[\d+\].*negatives"):
        train(tiny(photographs, **{"data.negatives": "records"}), tmp_path)


def test_another_experiments_directory_is_refused(photographs, whole):
    with pytest.raises(ValueError, match="optimizer.b1: 0.9 there, 0.8 here"):
        train(tiny(photographs, **{"optimizer.b1": 0.8}), whole)


def test_a_broken_photograph_is_one_line(photographs, tmp_path):
    root = tmp_path / "broken"
    (root / "images").mkdir(parents=True)
    (root / "captions.json").write_bytes((photographs / "captions.json").read_bytes())
    for path in (photographs / "images").iterdir():
        (root / "images" / path.name).write_bytes(path.read_bytes()[:700])
    result = finished(command(root, tmp_path / "run"), env=environment(1))
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and ".jpg" in last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--config.optimzer.b1=0.8", "did you mean 'optimizer'"),
        ("--config.optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("--config.batch_size=many", "batch_size=many"),
        # A section whose keys are the experiment's own.
        ("--config.method.options.ema_deca=0.9", r"'ema_deca' (nearest: ema_decay)"),
        ("--config.data.options.image=x", "there are: annotations, images"),
        ("--config.method.options.igc_weight=high", "'igc_weight' of method degla: 'high' is"),
        ("--config.eval.retrievel.root=x", "benchmark 'retrievel' (nearest: retrieval)"),
        ("--config.seed.x=1", "--config.seed is a value: it has no key 'x'"),
    ],
)
def test_a_misspelt_key_names_the_nearest(photographs, tmp_path, flag, hint):
    result = finished(command(photographs, tmp_path, flag), env=environment(1))
    assert result.returncode == 1
    assert hint in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("", "Flag --config must have a value"),
        (
            "config.optimizer.learning_rat = 1",
            "config.optimizer.learning_rat = 1: there is no key 'learning_rat': did you mean "
            "'learning_rate'? It has: b1, b2",
        ),
        ("config.optimizr.b1 = 1", "there is no key 'optimizr': did you mean 'optimizer'?"),
        ("config.data.options.image = 'x'", "unknown option of data source captions 'image'"),
        (None, "No such file or directory: 'experiment.py'"),
    ],
)
def test_an_experiment_that_cannot_be_read_is_one_line(tmp_path, line, hint):
    run = [sys.executable, str(ROOT / "train.py")]
    if line != "":
        run += ["--config=experiment.py", "--config.seed=1"]
    if line:
        source = (ROOT / "tpu_configs" / "flickr8k_tiny.py").read_text()
        source = source.replace("    return config", f"    {line}\n    return config")
        (tmp_path / "experiment.py").write_text(source)
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment(1))
    assert result.returncode == 1
    assert hint in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_disk_without_room_is_one_line(photographs, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="1 MB are free and it takes .* last whole one is of step 0"):
        train(tiny(photographs), tmp_path)


@pytest.mark.slow
def test_a_disk_that_fills_up_meanwhile_is_one_line(photographs, tmp_path):
    # No file may grow beyond 200 blocks: what a checkpoint meets where a quota ends.
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash"]
    result = finished([*limited, *command(photographs, tmp_path)], env=environment(1))
    assert result.returncode == 1
    # Orbax's threads that were still writing may report around it, even on the same line.
    [error] = re.findall("error: cannot write a checkpoint to .*", result.stderr)
    assert "File too large" in error and "the last whole one is of step 0" in error


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["run", "hf"])
def test_starts_from_weights_and_the_teacher_with_it(layout, photographs, whole, tmp_path):
    loaded = load_weights(whole)
    source = whole if layout == "run" else tmp_path / "exported"
    if source != whole:
        save_weights(
            source,
            loaded.config,
            loaded.params,
            layout,
            tokenizer=loaded.tokenizer,
            tokenizer_hash=loaded.tokenizer_hash,
        )
    changes = {"init.from": str(source), "total_steps": 1, "optimizer.warmup_steps": 0}
    still = {"optimizer.learning_rate": 0.0, "method.options.ema_decay": 0.5}
    train(tiny(photographs, **changes, **still), tmp_path / "run")
    for part in ("params", "teacher"):
        with ocp.StandardCheckpointer() as checkpointer:
            there = checkpointer.restore(tmp_path / "run" / "checkpoints" / "1" / part)
        jax.tree.map(np.testing.assert_array_equal, there, loaded.params)


def test_weights_of_another_activation_are_refused(photographs, whole, tmp_path):
    changes = {"init.from": str(whole), "model.name": "tiny-quickgelu"}
    with pytest.raises(ValueError, match="activation.*gelu.*quick_gelu"):
        train(tiny(photographs, **changes), tmp_path)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


def test_weights_are_named_on_the_command_line(photographs, tmp_path):
    """'from' is a keyword of Python, as which ml_collections would read the flag."""
    flag = f"--config.init.from={tmp_path}/none.from/if"
    result = finished(command(photographs, tmp_path / "run", flag), env=environment(1))
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/none.from/if: no such file or folder")


def test_a_hub_out_of_reach_says_what_to_do(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes = {"init.from": "openai/clip-vit-base-patch32"}
    with pytest.raises(FileNotFoundError, match="openai/clip-vit-base-patch32.*give the folder"):
        train(tiny(photographs, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
