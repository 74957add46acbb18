"""What never changes is kept once, and a run in which a part learns goes on as if uninterrupted."""

import contextlib
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from errors import UserError
from methods.base import load, with_external_teachers
from tests.training import linear
from training import mesh as meshes
from training.checkpoints import Checkpoints
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step
from training.trainable import choose_trainable

TX = optax.adamw(1e-2, weight_decay=0.1)
OPTIONS = {
    "all": {},
    "a part": {"learn": ("image", "logit_scale")},
    "low rank": {"rank": 2, "where": ("image", "text"), "learn": ("logit_scale",)},
}


def parts(options, teacher, fsdp=1):
    mesh = meshes.make_mesh(fsdp=fsdp)
    method = load("clip", {"teacher": teacher, "ema_decay": 0.5})
    trainable = choose_trainable(jax.eval_shape(linear.init_params, jax.random.key(0)), **options)
    learning = (method, TX, trainable)
    abstract = abstract_state(mesh, linear.init_params, *learning)
    step = jit_train_step(make_train_step(linear.apply, linear.apply, *learning), abstract)
    key = jax.random.key(0)

    def advance(state, first, count):
        for batch in itertools.islice(linear.batches(), first, first + count):
            batch.pop("truncated")
            state, metrics = step(state, meshes.put_batch(mesh, batch))
        return state, metrics

    return abstract, lambda: init_state(abstract, linear.init_params, key, *learning, key), advance


@pytest.mark.parametrize("teacher", ["ema", "frozen"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_goes_on_bit_for_bit(options, teacher, tmp_path):
    abstract, start, advance = parts(options, teacher)
    whole, whole_metrics = advance(start(), 0, 4)
    half, _ = advance(start(), 0, 2)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(2, half, {}, {})
        checkpoints.wait()
        restored = checkpoints.restore(abstract)
        assert jax.tree.structure(restored) == jax.tree.structure(abstract)
        resumed, metrics = advance(restored, 2, 2)
    jax.tree.map(np.testing.assert_array_equal, (resumed, metrics), (whole, whole_metrics))
    kept = {path.name for path in (tmp_path / "fixed").glob("*")}
    assert ("params" in kept, "teacher" in kept) == (bool(options), teacher == "frozen")
    assert (tmp_path / "checkpoints" / "2" / "teacher").is_dir() == (teacher == "ema")


def test_a_run_of_an_earlier_version_has_its_frozen_teacher_in_every_checkpoint(tmp_path):
    abstract, start, _ = parts({}, "frozen")
    state = start()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, state, {}, {})
        checkpoints.wait()
    shutil.move(tmp_path / "fixed" / "teacher", tmp_path / "checkpoints" / "1" / "teacher")
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(abstract), state)


@pytest.mark.parametrize("folder", ["checkpoints/1/params", "fixed/params"])
def test_a_part_that_learns_and_the_rest_each_have_their_checksums(folder, tmp_path):
    """A checkpoint is read through Orbax, changed there, and written back: whole, but not true."""
    abstract, start, _ = parts(OPTIONS["a part"], "frozen")
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, start(), {}, {})
        checkpoints.wait()
    with ocp.StandardCheckpointer() as orbax:
        tree = orbax.restore(tmp_path / folder)
        orbax.save(tmp_path / folder, jax.tree.map(lambda x: x + 1, tree), force=True)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        with pytest.raises(UserError, match=r"values of params\[.* not those that were saved"):
            checkpoints.restore(abstract)


def test_begun_anew_it_is_kept_anew(tmp_path):
    abstract, start, advance = parts(OPTIONS["a part"], "frozen")
    for _ in range(2):
        state, _ = advance(start(), 0, 1)
        with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
            checkpoints.save(1, state, {}, {})
            checkpoints.wait()
            jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(abstract), state)
        shutil.rmtree(tmp_path / "checkpoints")
        stale = tmp_path / "fixed" / "params" / "manifest.ocdbt"
        stale.write_bytes(stale.read_bytes()[:10])


def test_a_frozen_teacher_takes_no_memory_for_what_the_student_does_not_change():
    abstract, _, _ = parts(OPTIONS["low rank"], "frozen")
    # The matrices are those below the student's products; only logit_scale needs a copy.
    assert [leaf.shape for leaf in jax.tree.leaves(abstract.fixed["teacher"])] == [()]
    abstract, _, _ = parts(OPTIONS["low rank"], "ema")
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(abstract.teacher))
    assert shapes == [(), (6, 4), (6, 4)]


def test_losses_are_the_same_on_another_mesh():
    runs = [parts(OPTIONS["low rank"], "ema", fsdp) for fsdp in (1, 4)]
    losses = [advance(start(), 0, 3)[1]["loss"] for _, start, advance in runs]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_another_teacher_is_kept_once_and_restored_from_there(tmp_path):
    """Its features are those of the student by another matrix, of another size and dtype."""
    mesh = meshes.make_mesh()
    method = with_external_teachers(load("clip", {"teacher": "frozen"}), ["teacher"])
    abstract = abstract_state(mesh, linear.init_params, method, TX)
    start = init_state(abstract, linear.init_params, jax.random.key(0), method, TX)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    teacher = {"both": jax.device_put(jnp.ones((6, 4), jnp.bfloat16), everywhere)}
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), teacher
    )
    abstract = abstract.with_external(method, {"teacher": shapes})
    state = start.with_external(method, {"teacher": teacher})

    def look(params, batch):
        return linear.apply(
            {"image": params["both"], "text": params["both"], "logit_scale": jnp.float32(0)}, batch
        )

    step = jit_train_step(make_train_step(linear.apply, look, method, TX), abstract)
    for batch in itertools.islice(linear.batches(), 2):
        batch.pop("truncated")
        state, metrics = step(state, meshes.put_batch(mesh, batch))
    assert metrics["distill"] > 0 and "teacher_distance" not in metrics
    assert step._cache_size() == 1
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(2, state, {}, {})
        checkpoints.wait()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(abstract), state)
    assert (tmp_path / "fixed" / "teacher").is_dir()
    assert not (tmp_path / "checkpoints" / "2" / "teacher").exists()
