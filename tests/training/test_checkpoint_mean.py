"""The mean of checkpoints, against numpy."""

import json

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from errors import FileError, UserError
from training.checkpoint_mean import average_run, average_weights, ends_of_epochs, saved_steps


def tree(seed):
    rng = np.random.default_rng(seed)
    return {"a": {"w": rng.normal(size=(2, 3)).astype(np.float32)}, "b": np.float32(rng.normal())}


def test_the_mean_of_trees():
    found = average_weights(tree(seed) for seed in range(5))
    assert found["a"]["w"].dtype == np.float32
    expected = np.mean([tree(seed)["a"]["w"] for seed in range(5)], axis=0)
    np.testing.assert_allclose(found["a"]["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(
        found["b"], np.mean([tree(seed)["b"] for seed in range(5)]), rtol=1e-6
    )


def test_one_tree_is_itself():
    found = average_weights([tree(3)])
    np.testing.assert_array_equal(found["a"]["w"], tree(3)["a"]["w"])
    with pytest.raises(ValueError, match="no weights"):
        average_weights([])


@pytest.fixture
def run(tmp_path):
    """Checkpoints of epochs 1 to 4, of 10 steps each."""
    folder = tmp_path / "run"
    with ocp.StandardCheckpointer() as writer:
        for epoch in range(1, 5):
            params = {"w": jnp.full(3, float(epoch))}
            writer.save(folder / "checkpoints" / str(10 * epoch) / "params", params)
    (folder / "config.json").write_text('{"checkpoint": {"every_steps": 20}}')
    (folder / "data.json").write_text(json.dumps({"records": 80, "steps_per_epoch": 10}))
    (folder / "tokenizer").mkdir()
    return folder


def test_a_range_of_epochs(run, tmp_path):
    output = tmp_path / "averaged"
    steps = ends_of_epochs(run, 2, 4)
    assert steps == [20, 30, 40]
    average_run(run, output, steps)
    with ocp.StandardCheckpointer() as reader:
        abstract = {"w": jnp.zeros(3)}
        found = reader.restore(output / "checkpoints" / "40" / "params", abstract)
    np.testing.assert_array_equal(found["w"], np.full(3, 3.0, np.float32))
    assert (output / "config.json").is_file() and (output / "tokenizer").is_dir()
    with pytest.raises(FileError, match="give another --output"):
        average_run(run, output, steps)


def test_a_range_of_steps(run):
    assert saved_steps(run, 15, 40) == [20, 40]
    (run / "config.json").write_text('{"checkpoint": {"every_steps": null}}')
    with pytest.raises(UserError, match="give --first_epoch"):
        saved_steps(run, 15, 40)


def test_missing_epochs_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints of the steps 50, 60"):
        average_run(run, tmp_path / "averaged", ends_of_epochs(run, 3, 6))
    assert not (tmp_path / "averaged").exists()
