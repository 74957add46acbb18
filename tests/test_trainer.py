"""Run.fit: what train.py trains, in memory; compiled once; parameters swapped under one encoder."""

import itertools

import jax
import numpy as np
import pytest
from flax import traverse_util

from data import sources
from errors import UserError
from pretrained.load import load_weights
from tpu_configs import base
from train import train
from trainer import Run
from training import loop
from training import mesh as meshes

pytestmark = pytest.mark.slow
STEPS = 3
MESH_KEYS = ("mesh.data", "mesh.fsdp", "mesh.tensor")


def small_config(**changes):
    config = base.get_world_config()
    config.batch_size = 8
    config.total_steps = config.checkpoint.every_steps = STEPS
    config.optimizer.warmup_steps = 1
    config.model.unroll_layers = True
    config.mesh.data = 2
    config.mesh.fsdp = 4
    config.data.text_rows = (1.0,)
    config.data.options.length = 40
    config.method.options.ema_decay = 0.5
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def run():
    return Run.open(small_config())


@pytest.fixture(scope="module")
def first(run):
    return run.first_params()


def scenes(**options):
    return sources.load("world", "", **dict(small_config().data.options, **options))


def leaves(params):
    return traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")


def test_it_is_what_train_py_does(run, first, tmp_path):
    fitted = leaves(run.fit(scenes(), STEPS, first))
    train(small_config(), tmp_path)
    trained = leaves(load_weights(tmp_path).params)
    assert fitted.keys() == trained.keys()
    for name, value in trained.items():
        np.testing.assert_array_equal(fitted[name], value, err_msg=name)
    moved = [name for name, value in leaves(first).items() if (value != trained[name]).any()]
    assert len(moved) > 30  # and the parameters that it started from are still there


def test_sources_of_one_shape_compile_once(run, first):
    run.fit(scenes(), STEPS, first)
    course = run.course(STEPS)
    records = scenes(seed=1, nouns="unseen")
    again = run.fit([records[i] for i in range(24)], STEPS, first, seed=3)
    assert course is run.course(STEPS)
    assert course.step._cache_size() == course.start._cache_size() == 1
    assert (leaves(again)["logit_scale"] != leaves(first)["logit_scale"]).any()


def losses(sizes):
    """Of five steps on a mesh, of a real model and its packed texts."""
    run = Run.open(small_config(**dict(zip(MESH_KEYS, sizes, strict=True))))
    course, source = run.course(5), scenes()
    state = run.first_state(course, run.first_params(), seed=0)
    values = []
    for batch in itertools.islice(run.batches(source, run.extras(source)), 5):
        fields = {name: rows for name, rows in batch.items() if name not in loop.COUNTERS}
        state, metrics = course.step(state, meshes.put_batch(run.mesh, fields))
        values.append(metrics["loss"])
    return np.array(values)


@pytest.mark.slow
def test_losses_are_the_same_on_every_mesh():
    expected = losses((8, 1, 1))
    for sizes in ((1, 8, 1), (2, 2, 2), (1, 2, 4)):
        np.testing.assert_allclose(losses(sizes), expected, rtol=1e-5, err_msg=str(sizes))


def test_a_turn_goes_on_from_the_last(run, first):
    """Not the same as one longer training: the schedule and the teacher start anew."""
    once = run.fit(scenes(), STEPS, first, seed=1)
    twice = run.fit(scenes(), STEPS, once, seed=1)
    assert (leaves(twice)["logit_scale"] != leaves(once)["logit_scale"]).any()


def test_one_encoder_serves_all_parameters(run, first):
    images = [scenes()[i]["image"] for i in range(3)]
    encoded = run.encoder(first).images(images)
    zero = jax.tree.map(lambda x: x, first)
    zero["vision"] = jax.tree.map(lambda x: x * 0.5, zero["vision"])
    other = run.encoder(zero).images(images)
    assert np.abs(encoded - other).max() > 1e-3
    np.testing.assert_array_equal(run.encoder(first).images(images), encoded)


def test_a_loss_that_is_not_finite_is_told(run, first):
    broken = {**first, "logit_scale": first["logit_scale"] * np.nan}
    with pytest.raises(UserError, match="after 3 steps .*nan.* lower config.optimizer.learning"):
        run.fit(scenes(), STEPS, broken)


def test_a_run_without_a_tokenizer_is_refused():
    config = small_config()
    config.init["from"] = ""
    with pytest.raises(UserError, match="names no weights.*name one in config.data.tokenizer"):
        Run.open(config)
