"""What every method promises; runs over whatever lies in methods/, with its default options."""

import contextlib
import functools
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from methods import base
from models.clip import CLIP
from tests.methods import small
from tests.methods.small import N
from training.checkpoints import Checkpoints
from training.mesh import make_mesh, put_batch
from training.microbatches import microbatched
from training.step import jit_train_step, make_train_step
from training.teacher import each

METHODS_DIR = Path(base.__file__).parent
NAMES = sorted(p.stem for p in METHODS_DIR.glob("[!_]*.py") if p.stem != "base")
FIELDS = ("image", "text", "negatives", "negatives_valid", "video", "label", "class_text")
FIELDS += ("tokens", "completion", "preferred")

pytestmark = pytest.mark.usefixtures("strict_ranks", "light_compiler")


@pytest.fixture(scope="module")
def light_compiler():
    """What is promised is of the mathematics: that the programs are fast costs a third more."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# Each as it is and, where it can be, under a teacher.
UNDER_A_TEACHER = [
    pytest.param((name, {"teacher": "ema"}), marks=pytest.mark.slow, id=f"{name}-under-ema")
    for name in NAMES
    if base.find(name)[1].defaults.get("teacher") == "none"
]


@pytest.fixture(
    params=[*(pytest.param((name, {}), id=name) for name in NAMES), *UNDER_A_TEACHER],
    scope="module",
)
def method(request):
    return base.load(*request.param)


TX = optax.adamw(1e-2)


def make_step(method):
    return make_train_step(small.embedder(method), small.embedder(method), method, TX)


@functools.cache  # each method is compiled once for the whole suite
def jitted(method):
    return jax.jit(make_step(method))


def run(method, step, state, first, steps):
    for i in range(first, first + steps):
        state, metrics = step(state, small.make_batch(method, i))
    return state, metrics


@functools.cache
def first(method):
    """The state before the first step, where a restored one lies, too: else jit compiles again."""
    return jax.device_put(small.make_state(method, TX), jax.devices()[0])


@functools.cache
def trained(method):
    """A state whose teacher and carry have left their initial values."""
    return run(method, jitted(method), first(method), 0, 2)[0]


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.cache
def gradient_of(method):
    """The compiled (state, batch) -> what value_and_gradient() returns."""
    embed = small.embedder(method)

    def gradient(state, batch):
        teacher = each(
            method.teacher,
            lambda policy, params: None if params is None else embed(params, batch),
            state.teachers(method),
        )

        def loss(student, teacher):
            value, metrics, carry = method.loss(student, teacher, batch, state.carry)
            return value, (metrics, carry)

        both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
        value, gradients = both(embed(state.params, batch), teacher)
        return value, small.differentiable(gradients)

    return jax.jit(gradient)


def value_and_gradient(method, state, batch):
    """The loss, its metrics and next carry, and the gradient to student and teacher embeddings."""
    return gradient_of(method)(state, batch)


def test_all_methods_are_found():
    assert NAMES == base.available()
    assert {"ce_clip", "clip", "degla", "dpo", "froster", "negclip", "sft", "siglip"} <= set(NAMES)


def test_methods_can_be_put_under_a_teacher():
    covered = {variant.values[0][0] for variant in UNDER_A_TEACHER}
    assert {"clip", "negclip", "ce_clip", "siglip", "fsc_clip", "read_clip"} <= covered
    assert {"cs_clip", "clic", "clip_kd"} <= covered and "degla" not in covered


def test_what_is_needed_is_among_what_there_can_be(method):
    assert set(method.batch_fields) <= set(FIELDS)
    assert set(method.needs) <= set(CLIP.provides)
    base.check_batch(method, small.make_batch(method))


def test_finite_scalars_of_float32(method):
    (value, (metrics, carry)), grads = value_and_gradient(
        method, trained(method), small.make_batch(method, 5)
    )
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
    run(method, jitted(method), first(method), 0, 3)
    assert jitted(method)._cache_size() == 1


def test_jit_equals_eager(method):
    state, batch = trained(method), small.make_batch(method, 5)
    assert_close(make_step(method)(state, batch), jitted(method)(state, batch))


def test_a_batch_in_parts_is_the_batch_in_one_piece(method):
    embedder = microbatched(small.embedder(method), 2, shards=2)
    step = jax.jit(make_train_step(embedder, embedder, method, TX))
    state, batch = trained(method), small.make_batch(method, 5)
    parts, whole = step(state, batch), jitted(method)(state, batch)
    # Adam's first moments are linear in the gradient, its update is not where that is near zero.
    assert_close(parts[0].opt_state[0].mu, whole[0].opt_state[0].mu)
    assert_close((parts[0].carry, parts[1]["loss"]), (whole[0].carry, whole[1]["loss"]))


def test_no_gradient_into_the_teacher(method):
    state = trained(method)
    _, (student_grad, teacher_grad) = value_and_gradient(method, state, small.make_batch(method, 5))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(student_grad))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teacher_grad))
    assert (teacher_grad is None) == (state.teachers(method) is None)


def test_batch_order_does_not_matter(method):
    state, batch = trained(method), small.make_batch(method, 5)
    order = np.random.default_rng(1).permutation(N)
    shuffled = small.shuffled(batch, order)
    value, (student, teacher) = value_and_gradient(method, state, batch)
    value_2, (student_2, teacher_2) = value_and_gradient(method, state, shuffled)
    assert_close(value_2, value)

    def reorder(grad):
        return jax.tree.map(lambda x: x[order] if x.ndim and len(x) == N else x, grad)

    assert_close((student_2, teacher_2), (reorder(student), reorder(teacher)))


def test_empty_slots_have_no_influence(method):
    state, batch = trained(method), small.make_batch(method, 5)
    other = small.with_other_empty_slots(batch, small.make_batch(method, 6))
    assert_identical(jitted(method)(state, batch), jitted(method)(state, other))


def on_mesh(method, mesh):
    """The compiled step and the state before the first one, laid out on a mesh."""

    def place(x):
        # As training/mesh.py has a patch embedding or a table of tokens.
        split = x.ndim == 2 and x.shape[1] % mesh.shape["fsdp"] == 0
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*[None, "fsdp"][: 2 * split])))

    state = jax.tree.map(place, small.make_state(method, TX))
    return jit_train_step(make_step(method), state), state


def losses(method, step, state, put=lambda batch: batch, steps=5):
    values = []
    for i in range(steps):
        state, metrics = step(state, put(small.make_batch(method, i)))
        values.append(metrics["loss"])
    return np.array(values), state


@functools.cache
def losses_of_one_device(method):
    return losses(method, jitted(method), first(method))[0]


SIZES = (1, 2, 4, 8)
MESHES = [sizes for sizes in itertools.product(SIZES, repeat=3) if math.prod(sizes) == 8]
ALL_AXES = (2, 2, 2)


@pytest.mark.parametrize("method", [pytest.param((n, {}), id=n) for n in NAMES], indirect=True)
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(sizes, marks=() if sizes == ALL_AXES else pytest.mark.slow, id=str(sizes))
        for sizes in MESHES
    ],
)
def test_losses_are_the_same_on_every_mesh(method, sizes):
    mesh = make_mesh(*sizes)
    step, state = on_mesh(method, mesh)
    start = jax.tree.map(lambda x: x.sharding, state)
    ours, state = losses(method, step, state, functools.partial(put_batch, mesh))
    np.testing.assert_allclose(ours, losses_of_one_device(method), rtol=1e-5)
    assert len(set(ours.tolist())) == len(ours)
    assert jax.tree.map(lambda x: x.sharding, state) == start


def test_interrupted_equals_uninterrupted_bit_for_bit(method, tmp_path):
    step = jitted(method)
    start = first(method)
    whole, whole_metrics = run(method, step, start, 0, 6)
    half, _ = run(method, step, start, 0, 3)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(3, half, {}, {})
        checkpoints.wait()
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), half
        )
        resumed, metrics = run(method, step, checkpoints.restore(shapes), 3, 3)
    assert_identical((resumed, metrics), (whole, whole_metrics))
