"""Checkpoints that were cut, emptied, deleted or changed: never read as something else."""

import gc
import shutil

import jax
import numpy as np
import pytest

from methods.base import load
from pretrained.checksums import checksums, differing
from tests.training import linear
from tests.training.test_loop import OPTIMIZER, TOTAL, logged, run
from training import mesh as meshes
from training.checkpoints import Checkpoints
from training.logging import METRICS_FILE, read_metrics
from training.optimizer import make_optimizer
from training.state import abstract_state

# After the first array that it cannot read, Orbax abandons its reading of the others.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected():
    """What it abandoned is collected here, and not in another module's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def abstract():
    _, tx = make_optimizer(total_steps=TOTAL, **OPTIMIZER)
    return abstract_state(meshes.make_mesh(fsdp=2), linear.init_params, load("clip", {}), tx)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory, abstract):
    """A run directory with checkpoints of steps 3 and 6, and what they hold."""
    workdir = tmp_path_factory.mktemp("runs") / "two"
    run(workdir, stop_at=6)
    checkpoints = Checkpoints(workdir, read_only=True)
    return workdir, {step: checkpoints.restore(abstract, step) for step in (3, 6)}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def flip_late(path):
    content = bytearray(path.read_bytes())
    if content:
        content[-1 - len(content) // 8] ^= 0x01
    path.write_bytes(content)


def equal(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


@pytest.mark.parametrize("damage", [cut, empty, flip, flip_late, None])
def test_any_damaged_file_is_survived(damage, two_checkpoints, abstract, tmp_path):
    """Every file of the newest checkpoint in turn: its values, or those of the one before."""
    workdir, states = two_checkpoints
    files = sorted(path for path in (workdir / "checkpoints" / "6").rglob("*") if path.is_file())
    assert len(files) > 10
    used = []
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(workdir, copy)
        damaged = copy / file.relative_to(workdir)
        damaged.unlink() if damage is None else damage(damaged)
        state = Checkpoints(copy, keep_last=2).restore(abstract)
        step = int(state.step)
        assert equal(state, states[step]), file
        assert (copy / "damaged").exists() == (step == 3), file
        used.append(step)
        shutil.rmtree(copy)
    assert 3 in used


@pytest.mark.parametrize("item", ["params", "rest", "config", ".", "_CHECKPOINT_METADATA"])
def test_a_missing_part_is_named_and_the_run_goes_on(item, two_checkpoints, tmp_path, caplog):
    workdir, _ = two_checkpoints
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    gone = copy / "checkpoints" / "6" / item
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    gone.parent.mkdir(exist_ok=True)
    if item == ".":
        gone.mkdir()
    whole = run(tmp_path / "whole")
    assert equal(run(copy), whole)
    if item != "_CHECKPOINT_METADATA":  # Orbax does without
        assert "the checkpoint of step 6" in caplog.text and "going on from step 3" in caplog.text
        assert [path.name.split("-")[0] for path in (copy / "damaged").iterdir()] == ["6"]


def test_when_all_are_damaged_one_line_lists_them(two_checkpoints, abstract, tmp_path):
    workdir, _ = two_checkpoints
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    for step in (3, 6):
        shutil.rmtree(copy / "checkpoints" / str(step) / "params")
    with pytest.raises(ValueError, match=r"is whole \(step 6: [^\n]*; step 3: [^\n]*\): restore"):
        Checkpoints(copy).restore(abstract)
    assert not (copy / "damaged").exists()


def test_a_step_asked_for_is_not_replaced_by_another(two_checkpoints, abstract, tmp_path):
    workdir, _ = two_checkpoints
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / "6" / "params")
    with pytest.raises(ValueError, match="step 6"):
        Checkpoints(copy).restore(abstract, 6)


def test_torn_lines_of_metrics_are_named_and_lose_only_themselves(tmp_path, caplog):
    run(tmp_path, stop_at=6)
    path = tmp_path / METRICS_FILE
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:20]
    lines[4] = "\0\0\0"
    path.write_text("\n".join(lines) + '\n{"step": 7, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 4, 6]
    run(tmp_path)
    assert f"{METRICS_FILE}, line 3 is torn" in caplog.text
    assert [row["step"] for row in logged(tmp_path)] == [1, 2, 4, *range(6, TOTAL + 1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "int32"])
def test_a_checksum_knows_every_bit_and_every_exchange(dtype):
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(
        rng.integers(0, 2, (5, 3)) if dtype == "bool" else rng.normal(size=(5, 3))
    )
    x = np.array(x.astype(dtype))
    stored = checksums({"x": x})
    raw = x.view(np.uint8).reshape(-1)
    for place in range(raw.size):
        for bit in range(1 if dtype == "bool" else 8):
            changed = raw.copy()
            changed[place] ^= 1 << bit
            assert differing({"x": changed.view(x.dtype).reshape(x.shape)}, stored) == ["['x']"]
    if dtype != "bool":
        assert differing({"x": x[::-1]}, stored)


def test_a_checksum_is_that_of_any_mesh():
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    mesh = meshes.make_mesh(fsdp=4)
    spread = jax.device_put(x, meshes.batch_sharding(mesh))
    assert checksums([spread]) == checksums([x])
