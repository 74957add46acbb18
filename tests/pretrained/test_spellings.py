"""State dicts as wrappers, training loops and sharding write them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from errors import MissingFileError, UserError
from pretrained import names
from pretrained.find import find_weights
from pretrained.load import load_weights
from tests.pretrained.goldens import read_golden, section
from tests.pretrained.test_load import assert_trees_equal, write_golden

NAME = "open_clip_gelu"


def weights(name=NAME):
    return section(read_golden(name)[2], "weights/")


def load(folder, tensors, name=NAME):
    """The parameters of a folder whose weights file holds these tensors instead."""
    config, _ = write_golden(name, folder)
    (path,) = folder.glob("*.safetensors")
    safetensors.numpy.save_file(tensors, path)
    return load_weights(folder).params, config


def text_inside(name):
    return name if name.startswith(("visual.", "logit_scale")) else f"text.{name}"


def compiled_parts(name):
    return name.replace("visual.", "visual._orig_mod.").replace(
        "transformer.", "transformer.module."
    )


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model.{name}",
        lambda name: f"model.module.clip.{name}",
        lambda name: f"student.{text_inside(name)}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        text_inside,
        compiled_parts,
        lambda name: f"model.{compiled_parts(text_inside(name))}",
    ],
)
def test_what_wrappers_call_a_tensor_is_seen_through(spell, tmp_path):
    tensors = weights()
    params, config = load(tmp_path, {spell(name): value for name, value in tensors.items()})
    assert_trees_equal(params, names.from_torch(tensors, config, "open_clip"))


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "siglip"])
@pytest.mark.parametrize("prefix", ["model.", "module._orig_mod.", "clip."])
def test_the_other_layouts_too(name, prefix, tmp_path):
    tensors = weights(name)
    params, config = load(tmp_path, {prefix + key: v for key, v in tensors.items()}, name)
    assert_trees_equal(params, names.from_torch(tensors, config, "hf"))


@pytest.mark.parametrize("shape", [(1,), (1, 1), ()])
@pytest.mark.parametrize("name", ["gelu", NAME, "siglip"])
def test_one_number_is_one_number(shape, name, tmp_path):
    tensors = weights(name)
    expected = names.from_torch(tensors, read_golden(name)[0], read_golden(name)[1])
    changed = tensors | {"logit_scale": tensors["logit_scale"].reshape(shape)}
    assert_trees_equal(load(tmp_path, changed, name)[0], expected)


def test_numbers_that_are_no_weights_are_left_out_aloud(tmp_path, monkeypatch):
    from pretrained import spellings

    said = []
    monkeypatch.setattr(spellings.logging, "warning", lambda text, *a: said.append(text % a))
    tensors = weights()
    more = {"n_averaged": np.array(7), "thresholds.last": np.zeros(1, np.float32)}
    more |= {"model.input_resolution": np.array(16), "model.attn_mask": np.zeros((9, 9))}
    params, config = load(tmp_path, {f"model.{key}": v for key, v in tensors.items()} | more)
    assert_trees_equal(params, names.from_torch(tensors, config, "open_clip"))
    assert [line.split(": ")[-1].split()[0] for line in said] == ["n_averaged", "thresholds.last"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t | {"logit_bias": np.zeros((), np.float32)}, "surplus logit_bias"),
        (lambda t: t | {"head.weight": np.zeros((3, 2), np.float32)}, "surplus head.weight"),
        (
            lambda t: {f"{p}.{k}": v for p in ("student", "teacher") for k, v in t.items()},
            "holds the weights more than once, under 'student.' and 'teacher.'",
        ),
        (
            lambda t: t | {f"ema.{k}": v for k, v in t.items()},
            "holds the weights more than once, under '' and 'ema.'",
        ),
        (
            lambda t: t | {"module.logit_scale": np.zeros((), np.float32)},
            "under two names, (module.)?logit_scale and (module.)?logit_scale",
        ),
        (lambda t: {k: v for k, v in t.items() if k != "ln_final.bias"}, "missing ln_final.bias"),
        (lambda t: {"a.b": np.zeros(3, np.float32)}, "missing .*surplus a.b"),
    ],
)
def test_what_is_not_understood_is_named(change, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, change(weights()))
    assert "\n" not in str(error.value) and ".safetensors" in str(error.value)


@pytest.fixture
def sharded(tmp_path):
    """A folder of two shards with their index, as save_pretrained(max_shard_size=) writes it."""
    config, tensors = write_golden("gelu", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {name: tensors[name] for name in tensors if files[name] == file}
        safetensors.numpy.save_file(part, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return tmp_path, index, files, names.from_torch(tensors, config, "hf")


def test_shards_are_read_by_their_index(sharded):
    folder, index, _, expected = sharded
    assert_trees_equal(load_weights(folder).params, expected)
    config = find_weights(folder).config
    assert_trees_equal(load_weights(index, config=config).params, expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: f | {"logit_scale": "model-00003-of-00002.safetensors"}, "no such file, and"),
        (lambda f: f | {"logit_scale": "../model.safetensors"}, "no safetensors file beside it"),
        (lambda f: f | {"logit_scale": "/etc/passwd"}, "no safetensors file beside it"),
        (lambda f: f | {"more.weight": sorted(f.values())[0]}, "more.weight is not in model-00001"),
        (lambda f: [1], "weight_map should name"),
        (lambda f: f | {"logit_scale": 3}, "weight_map should name"),
    ],
)
def test_an_index_that_does_not_fit_is_named(sharded, change, message):
    folder, index, files, _ = sharded
    index.write_text(json.dumps({"weight_map": change(files)}))
    with pytest.raises((UserError, MissingFileError), match=message) as error:
        load_weights(folder)
    assert str(index) in str(error.value)


def test_a_shard_that_is_cut_is_named(sharded):
    folder, _, files, _ = sharded
    path = folder / sorted(files.values())[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=f"{path} is no whole safetensors file"):
        load_weights(folder)


@pytest.mark.parametrize("name", ["convnext_base", "vit_medium_patch16_gap_256", 3])
def test_a_timm_tower_that_is_not_here_is_named_as_such(name, tmp_path):
    write_golden(NAME, tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["vision_cfg"] = {"timm_model_name": name, "image_size": 224}
    path.write_text(json.dumps(content))
    message = f"timm_model_name = {name!r} is a tower of timm that is not supported here"
    with pytest.raises(UserError, match=message):
        find_weights(tmp_path)
