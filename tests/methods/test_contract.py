"""What every method promises; runs over whatever lies in methods/, with its default options."""

import contextlib
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from methods import base
from models.embeddings import Embeddings
from training.checkpoints import Checkpoints
from training.mesh import make_mesh, put_batch
from training.state import create_state
from training.step import make_train_step

METHODS_DIR = Path(base.__file__).parent
NAMES = sorted(p.stem for p in METHODS_DIR.glob("[!_]*.py") if p.stem != "base")

N, K, LENGTH, SIZE, VOCAB, D = 16, 4, 6, 4, 32, 8
T, C = 3, 5  # frames of a clip, classes of the videos
FIELDS = ("image", "text", "negatives", "negatives_valid", "video", "label", "class_text")

pytestmark = pytest.mark.usefixtures("strict_ranks")


@pytest.fixture(params=NAMES, scope="module")
def method(request):
    return base.load(request.param, {})


def make_params():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(SIZE * SIZE * 3, D)), jnp.float32),
        "text": jnp.asarray(rng.normal(size=(VOCAB, D)), jnp.float32),
        "logit_scale": jnp.float32(math.log(10.0)),
        "logit_bias": jnp.float32(-10.0),
        "head": jnp.asarray(rng.normal(size=(D, D)), jnp.float32),
    }


def make_batch(step=0):
    rng = np.random.default_rng(100 + step)
    valid = rng.random((N, K)) < 0.7
    valid[0] = False
    return {
        "image": rng.integers(0, 256, (N, SIZE, SIZE, 3)).astype(np.uint8),
        "text": rng.integers(0, VOCAB, (N, LENGTH)).astype(np.int32),
        "negatives": rng.integers(0, VOCAB, (N, K, LENGTH)).astype(np.int32),
        "negatives_valid": valid,
        "video": rng.integers(0, 256, (N, T, SIZE, SIZE, 3)).astype(np.uint8),
        "label": rng.integers(0, C, N).astype(np.int32),
        "class_text": rng.integers(0, VOCAB, (C, 2, LENGTH)).astype(np.int32),
    }


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def pixels(images):
    return images.reshape(*images.shape[:-3], -1).astype(jnp.float32) / 127.5 - 1


def apply(params, batch):
    """A linear CLIP: pixels times a matrix, and the mean of the tokens' vectors."""
    return Embeddings(
        image=unit(pixels(batch["image"]) @ params["image"]),
        text=unit(params["text"][batch["text"]].mean(axis=-2)),
        negatives=unit(params["text"][batch["negatives"]].mean(axis=-2)),
        logit_scale=jnp.exp(params["logit_scale"]),
        logit_bias=params["logit_bias"],
    )


def apply_to_video(params, batch):
    """The same of frames and of classes' texts, with a head of residuals."""
    image = unit(pixels(batch["video"]) @ params["image"])
    text = unit(params["text"][batch["class_text"]].mean(axis=(-3, -2)))
    return Embeddings(
        image=image,
        text=text,
        logit_scale=jnp.exp(params["logit_scale"]),
        image_residual=image + 0.1 * image @ params["head"],
        text_residual=text + 0.1 * text @ params["head"],
    )


def apply_of(method):
    return apply_to_video if "video" in method.batch_fields else apply


TX = optax.adamw(1e-2)


def make_step(method):
    return make_train_step(apply_of(method), apply_of(method), method, TX)


@functools.cache  # each method is compiled once for the whole suite
def jitted(method):
    return jax.jit(make_step(method))


def run(step, state, first, steps):
    for i in range(first, first + steps):
        state, metrics = step(state, make_batch(i))
    return state, metrics


@functools.cache
def trained(method):
    """A state whose teacher and carry have left their initial values."""
    return run(jitted(method), create_state(make_params(), method, TX), 0, 2)[0]


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def value_and_gradient(method, state, batch):
    """The loss, its metrics and next carry, and the gradient to student and teacher embeddings."""
    embed = jax.jit(apply_of(method))
    student = embed(state.params, batch)
    teacher = None if state.teacher is None else embed(state.teacher, batch)

    def loss(student, teacher):
        value, metrics, carry = method.loss(student, teacher, batch, state.carry)
        return value, (metrics, carry)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(student, teacher)


def test_all_methods_are_found():
    assert NAMES == base.available()
    assert {"ce_clip", "clip", "degla", "froster", "negclip", "siglip"} <= set(NAMES)


def test_fields_are_among_those_a_batch_can_have(method):
    assert set(method.batch_fields) <= set(FIELDS)
    base.check_batch(method, make_batch())


def test_finite_scalars_of_float32(method):
    (value, (metrics, carry)), grads = value_and_gradient(method, trained(method), make_batch(5))
    for scalar in [value, *metrics.values()]:
        assert scalar.shape == () and scalar.dtype == jnp.float32
    for leaf in jax.tree.leaves((value, metrics, carry, grads)):
        assert np.isfinite(leaf).all()


def test_carry_keeps_its_structure_shapes_and_dtypes(method):
    state = trained(method)
    shapes = jax.tree.map(jax.typeof, state.carry)
    assert shapes == jax.tree.map(jax.typeof, method.init_carry())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(shapes))


def test_compiles_once(method):
    step = jax.jit(make_step(method))
    run(step, jax.jit(lambda: create_state(make_params(), method, TX))(), 0, 3)
    assert step._cache_size() == 1


def test_jit_equals_eager(method):
    state, batch = trained(method), make_batch(5)
    assert_close(make_step(method)(state, batch), jitted(method)(state, batch))


def test_no_gradient_into_the_teacher(method):
    state = trained(method)
    _, (student_grad, teacher_grad) = value_and_gradient(method, state, make_batch(5))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(student_grad))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teacher_grad))
    assert (teacher_grad is None) == (state.teacher is None)


def test_batch_order_does_not_matter(method):
    state, batch = trained(method), make_batch(5)
    order = np.random.default_rng(1).permutation(N)
    shuffled = {
        field: rows if field == "class_text" else rows[order] for field, rows in batch.items()
    }
    value, (student, teacher) = value_and_gradient(method, state, batch)
    value_2, (student_2, teacher_2) = value_and_gradient(method, state, shuffled)
    assert_close(value_2, value)

    def reorder(grad):
        return jax.tree.map(lambda x: x[order] if x.ndim and len(x) == N else x, grad)

    assert_close((student_2, teacher_2), (reorder(student), reorder(teacher)))


def test_empty_slots_have_no_influence(method):
    state, batch = trained(method), make_batch(5)
    empty = ~batch["negatives_valid"][..., None]
    other = dict(batch, negatives=np.where(empty, make_batch(6)["negatives"], batch["negatives"]))
    assert_identical(jitted(method)(state, batch), jitted(method)(state, other))


def test_one_device_equals_eight(method):
    mesh = make_mesh(data=4, fsdp=2)

    def sharding(x):
        return NamedSharding(mesh, PartitionSpec(*([None, "fsdp"] if x.ndim == 2 else [])))

    state, batch = trained(method), make_batch(5)
    step = jitted(method)
    sharded = jax.tree.map(lambda x: jax.device_put(x, sharding(x)), state)
    result = step(sharded, put_batch(mesh, batch))
    assert len(result[0].params["image"].sharding.device_set) == 8
    assert_close(result, step(state, batch))


def test_interrupted_equals_uninterrupted_bit_for_bit(method, tmp_path):
    step = jitted(method)
    start = create_state(make_params(), method, TX)
    whole, whole_metrics = run(step, start, 0, 6)
    half, _ = run(step, start, 0, 3)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(3, half, {}, {})
        checkpoints.wait()
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), half
        )
        resumed, metrics = run(step, checkpoints.restore(shapes), 3, 3)
    assert_identical((resumed, metrics), (whole, whole_metrics))
