"""Forks by config alone, on the shipped weights: LoRA, one tower, another teacher."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util

from errors import UserError
from pretrained.load import load_weights
from tpu_configs.base import WORLD_WEIGHTS
from train import train

SHORT = {
    "batch_size": 8,
    "total_steps": 3,
    "log_every_steps": 1,
    "optimizer.warmup_steps": 1,
    "optimizer.weight_decay": 0.1,
    "data.options.length": 64,
    "data.text_rows": (1.0,),
}


def run(name: str, workdir: Path, **changes) -> list[dict]:
    """What a short run of an experiment of the world logs of its steps."""
    config = importlib.import_module(f"tpu_configs.world.{name}").get_config()
    config.update_from_flattened_dict({**SHORT, **changes})
    train(config, workdir)
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "loss" in row]


def leaves(source) -> dict[str, np.ndarray]:
    """Parameters by path, as anyone reads them who knows nothing of how they were learnt."""
    flat = traverse_util.flatten_dict(load_weights(source).params, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items()}


@pytest.fixture(scope="module")
def start():
    parameters = leaves(WORLD_WEIGHTS)
    assert len(parameters) == 38
    return parameters


def moved(start, workdir):
    """The differences of what is not the same bit for bit."""
    after = leaves(workdir)
    assert after.keys() == start.keys()
    return {
        path: after[path] - leaf
        for path, leaf in start.items()
        if leaf.tobytes() != after[path].tobytes()
    }


@pytest.mark.slow
def test_lora_moves_the_matrices_by_its_rank_and_nothing_else(start, tmp_path):
    run("negclip", tmp_path, **{"train.lora.rank": 4})
    updates = moved(start, tmp_path)
    assert len(updates) == 8 and all(path.endswith("kernel") for path in updates)
    for path, update in updates.items():
        for layer in update:
            # The heads' output has its width last, any other kernel first.
            matrix = layer.reshape(-1, 128) if "/out/" in path else layer.reshape(len(layer), -1)
            values = np.linalg.svd(matrix, compute_uv=False)
            assert values[3] > 0 and values[4] < 1e-2 * values[3], path


@pytest.mark.slow
def test_one_tower_learns_and_the_other_stays_bit_for_bit(start, tmp_path):
    run("negclip", tmp_path, **{"train.learn": ("text/*",)})
    updates = moved(start, tmp_path)
    assert len(start) - len(updates) == 21
    assert updates.keys() == {path for path in start if path.startswith("text/")}


@pytest.mark.slow
@pytest.mark.parametrize("name, term", [("small_student", "distill"), ("clip_kd", "feature")])
def test_a_small_student_learns_under_a_larger_teacher(name, term, tmp_path):
    rows = run(name, tmp_path)
    assert len(rows) == 3 and all(np.isfinite(row[term]) for row in rows)
    parameters = leaves(tmp_path)
    assert parameters["text/token_embedding/embedding"].shape[1] == 96
    assert parameters["vision/projection/kernel"].shape == (96, 96)
    assert len(parameters) == 38


@pytest.mark.slow
def test_residual_heads_stand_between_the_student_and_its_teacher(start, tmp_path):
    options = {"method.options.teacher": "frozen", "method.options.distill_weight": 0.1}
    plain = run("degla", tmp_path / "plain", **options)
    rows = run("degla", tmp_path / "heads", **options, **{"train.residual_heads": True})
    # At the start they change nothing; then they learn, and the student learns otherwise.
    assert rows[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    assert rows[2]["loss"] != pytest.approx(plain[2]["loss"], rel=1e-6)
    assert leaves(tmp_path / "heads").keys() == start.keys()


def test_residual_heads_need_a_teacher(tmp_path):
    with pytest.raises(UserError, match="negclip has no teacher: give it one with config.method"):
        run("negclip", tmp_path, **{"train.residual_heads": True})
