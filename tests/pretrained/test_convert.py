"""The command: what it prints, what it writes, and how it fails."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from data.tokenizer import load_tokenizer, train_tokenizer
from models.clip import CLIP, VideoConfig, init_params
from pretrained import convert, fingerprint, load, names
from pretrained.find import RUN_FILE
from pretrained.load import load_weights
from tests.pretrained.goldens import NAMES
from tests.pretrained.test_load import assert_trees_equal, write_golden
from training import mesh as meshes
from training.checkpoints import Checkpoints
from training.state import TrainState

TOKENIZER = train_tokenizer(["two dogs run on the grass"], 600)


def refused(arguments) -> str:
    with pytest.raises(SystemExit) as info:
        convert.main(arguments)
    return info.value.code


def test_converts_there_and_back(tmp_path, capsys):
    write_golden("quick_gelu", tmp_path / "a")
    convert.main([f"{tmp_path}/a", f"{tmp_path}/b", "--layout=open_clip"])
    convert.main([f"{tmp_path}/b", f"{tmp_path}/c", "--layout=tutelage"])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/b: {tmp_path}/a in the layout open_clip",
        f"{tmp_path}/c: {tmp_path}/b in the layout tutelage",
    ]
    first, last = load_weights(tmp_path / "a"), load_weights(tmp_path / "c")
    assert first.config == last.config
    assert_trees_equal(first.params, last.params)


@pytest.mark.parametrize("name", NAMES)
def test_describes_the_fingerprint(name, tmp_path, capsys):
    config, _ = write_golden(name, tmp_path)
    convert.main(["--describe", str(tmp_path)])
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    vision = config.vision
    assert lines["source"] == str(tmp_path)
    assert lines["vision.activation"] == vision.activation
    assert lines["text.activation"] == config.text.activation
    assert lines["vision.image_size"] == str(vision.image_size)
    assert lines["vision.mean"] == str(vision.mean) and lines["vision.std"] == str(vision.std)
    assert lines["vision.interpolation"] == "bicubic"
    assert lines["vision.resize"] == ("squash" if name == "siglip" else "shortest")
    assert lines["tokenizer_hash"] == "None" and lines["tokenizer"] == "none"
    assert lines["logit_bias"] == ("present" if name == "siglip" else "absent")


def test_bare_state_dict_wants_a_shape(tmp_path, capsys):
    write_golden("open_clip_gelu", tmp_path)
    path = (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "weights.safetensors")
    convert.main(["--describe", str(path)])
    assert "config: unknown: a bare state dict cannot say" in capsys.readouterr().out
    assert "name the shape" in refused([str(path), f"{tmp_path}/out", "--layout=hf"])
    error = refused([str(path), f"{tmp_path}/out", "--layout=hf", "--model=tiny"])
    assert "does not hold the tensors of its shape" in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_image_size_interpolates(tmp_path):
    write_golden("gelu", tmp_path / "a")
    arguments = [f"{tmp_path}/a", f"{tmp_path}/b", "--layout=hf", "--image_size=24"]
    convert.main(arguments)
    assert json.loads((tmp_path / "b/config.json").read_text())["vision_config"]["image_size"] == 24
    assert load_weights(tmp_path / "b").params["vision"]["position_embedding"].shape == (37, 24)


def test_destination_and_layout_go_together(tmp_path):
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path)])


@pytest.mark.parametrize("size", [0, -4, 3])
def test_an_image_size_below_a_patch_is_one_line(size, tmp_path, capsys):
    write_golden("gelu", tmp_path / "a")
    arguments = [f"{tmp_path}/a", f"{tmp_path}/b", "--layout=hf", f"--image_size={size}"]
    error = refused(arguments)
    assert str(size) in error and "\n" not in error and not (tmp_path / "b").exists()


def make_run(folder, config, steps, **kept):
    """A run directory with a checkpoint of the parameters for each step; kept: with each."""
    folder.mkdir()
    TOKENIZER.save(folder / "tokenizer")
    stored = fingerprint.fingerprint(config, TOKENIZER.fingerprint())
    (folder / RUN_FILE).write_text(json.dumps(stored))
    checkpoints = Checkpoints(folder, keep_last=max(1, len(steps)))
    for step, params in steps.items():
        state = TrainState(
            step=np.int32(step), params=params, opt_state=(), teacher=None, carry=(), fixed={}
        )
        checkpoints.save(step, state, kept, {"loss": 1.0})
    checkpoints.close()


def test_exports_a_run(tmp_path):
    config, _ = write_golden("gelu", tmp_path / "a")
    params = load_weights(tmp_path / "a").params
    doubled = jax.tree.map(lambda x: 2 * x, params)
    make_run(tmp_path / "run", config, {3: params, 10: doubled})
    for source, expected in (("run", doubled), ("run/checkpoints/3", params)):
        out = tmp_path / f"out{len(source)}"
        convert.main([f"{tmp_path}/{source}", str(out), "--layout=hf"])
        loaded = load_weights(out)
        assert loaded.tokenizer_hash == TOKENIZER.fingerprint()
        assert load_tokenizer(out).fingerprint() == TOKENIZER.fingerprint()
        assert_trees_equal(loaded.params, expected)


def test_a_tokenizer_is_hashed_and_compared(tmp_path, capsys):
    write_golden("gelu", tmp_path / "a")
    TOKENIZER.save(tmp_path / "tokenizer")
    for file in (tmp_path / "tokenizer").iterdir():
        shutil.copy(file, tmp_path / "a")
    convert.main([f"{tmp_path}/a", f"{tmp_path}/b", "--layout=open_clip"])
    assert load_weights(tmp_path / "b").tokenizer_hash == TOKENIZER.fingerprint()

    train_tokenizer(["other words"], 600).save(tmp_path / "other")
    for file in (tmp_path / "other").iterdir():
        shutil.copy(file, tmp_path / "b")
    capsys.readouterr()
    error = refused(["--describe", f"{tmp_path}/b"])
    assert "is not the tokenizer that" in error and "\n" not in error


def test_a_run_is_laid_out_and_resized_like_any_source(tmp_path):
    config, _ = write_golden("gelu", tmp_path / "a")
    params = load_weights(tmp_path / "a").params
    make_run(tmp_path / "run", config, {3: params})
    larger = dataclasses.replace(config, vision=dataclasses.replace(config.vision, image_size=24))
    mesh = meshes.make_mesh(2, 4, 1)
    boxed = jax.eval_shape(lambda key: init_params(CLIP(larger), key), jax.random.key(0))
    shardings = meshes.tree_shardings(mesh, boxed)
    options = dict(config=larger, resize=True)
    from_run = load_weights(tmp_path / "run", shardings, **options).params
    assert jax.tree.map(lambda x: x.sharding, from_run) == shardings
    assert_trees_equal(from_run, load_weights(tmp_path / "a", **options).params)


def test_run_without_a_checkpoint_is_one_line(tmp_path, capsys):
    config, _ = write_golden("gelu", tmp_path / "a")
    make_run(tmp_path / "run", config, {})
    error = refused(["--describe", f"{tmp_path}/run"])
    assert error == f"error: {tmp_path}/run has no checkpoint yet"


@pytest.mark.parametrize("layout", names.LAYOUTS)
def test_a_model_of_video_leaves_as_clip_and_its_window_is_kept(layout, tmp_path, capsys):
    config, _ = write_golden("quick_gelu", tmp_path / "a")
    config = dataclasses.replace(config, video=VideoConfig(window=2, edge="masked"))
    params = load_weights(tmp_path / "a").params
    heads = {name: {"kernel": np.ones((2, 2), np.float32)} for name in ("image_head", "text_head")}
    make_run(tmp_path / "run", config, {3: {**params, **heads}})
    with mock.patch.object(load.logging, "warning") as warning:
        convert.main([f"{tmp_path}/run", f"{tmp_path}/out", f"--layout={layout}"])
    (text, *values), _ = warning.call_args
    assert "image_head and text_head left out, which only training uses" in text % tuple(values)
    again = load_weights(tmp_path / "out")
    assert again.config.video == config.video
    assert_trees_equal(again.params, params)
    capsys.readouterr()
    convert.main(["--describe", f"{tmp_path}/out"])
    assert {"video.window: 2", "video.edge: masked"} <= set(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"logit_bias_init": -10.0}, "missing logit_bias"),
        ({"embed_dim": 8}, r"misshapen text/projection/kernel \(16, 12\) instead of \(16, 8\)"),
        ({"embed_dim": "x"}, "embed_dim is 'x'; it must be a whole number above 0"),
    ],
)
def test_a_run_whose_shape_was_changed_is_one_line(change, message, tmp_path, capsys):
    config, _ = write_golden("gelu", tmp_path / "a")
    make_run(tmp_path / "run", config, {3: load_weights(tmp_path / "a").params})
    path = tmp_path / "run" / RUN_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    error = refused([f"{tmp_path}/run", f"{tmp_path}/out", "--layout=tutelage"])
    assert re.search(message, error) and "\n" not in error and str(tmp_path / "run") in error


def test_a_run_whose_fingerprint_was_swapped_is_one_line(tmp_path, capsys):
    config, _ = write_golden("quick_gelu", tmp_path / "a")
    stamp = fingerprint.fingerprint(config, TOKENIZER.fingerprint())
    params = load_weights(tmp_path / "a").params
    make_run(tmp_path / "run", config, {3: params}, fingerprint=stamp)
    convert.main([f"{tmp_path}/run", f"{tmp_path}/b", "--layout=hf"])
    path = tmp_path / "run" / RUN_FILE
    path.write_text(path.read_text().replace("quick_gelu", "gelu"))
    capsys.readouterr()
    error = refused([f"{tmp_path}/run", f"{tmp_path}/c", "--layout=hf"])
    assert "vision.activation is quick_gelu there and gelu here" in error
    assert "\n" not in error


def test_a_damaged_checkpoint_is_one_line(tmp_path, capsys):
    config, _ = write_golden("gelu", tmp_path / "a")
    params = load_weights(tmp_path / "a").params
    make_run(tmp_path / "run", config, {1: params, 2: params, 3: params})
    one, two, three = (tmp_path / f"run/checkpoints/{step}/params" for step in (1, 2, 3))
    (one / "_METADATA").unlink()
    (two / "_METADATA").write_text("{")
    for file in three.rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    arguments = (f"{tmp_path}/b", "--layout=hf")
    for folder in (one, two):
        error = refused([str(folder.parent), *arguments])
        assert error.startswith(f"error: cannot read the checkpoint {folder.parent} (")
        assert "\n" not in error
    # A process of its own: TensorStore's threads may complain when Orbax has given up already.
    command = [sys.executable, "-m", "pretrained.convert", str(three.parent), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 1
    assert f"error: cannot read the checkpoint {three.parent} (" in run.stderr


def test_the_old_command_says_where_it_went():
    command = [sys.executable, "-m", "models.convert", "RUN", "DST", "--layout=hf"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode and "python -m pretrained.convert" in run.stderr
