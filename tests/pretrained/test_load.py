"""Weights in and out of folders: exact, sharded, one clear line for everything that is wrong."""

import dataclasses
import json

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from models import zoo
from models.clip import CLIP, init_params
from pretrained import configs, load, names
from pretrained.find import FILES, find_weights
from pretrained.load import load_weights, save_weights
from tests.models.test_zoo import PUBLISHED
from tests.pretrained.goldens import NAMES, read_golden, read_json, section
from training import mesh as meshes

CONFIG_FILES = {"hf": "config.json", "open_clip": "open_clip_config.json"}
WEIGHTS_FILES = {layout: names[0] for layout, (_, names) in FILES.items()}


def write_golden(name, folder, **changes):
    """A folder as the library of the golden writes it; changes: tensors by name, None drops one."""
    config, layout, arrays = read_golden(name)
    tensors = {k: v for k, v in (section(arrays, "weights/") | changes).items() if v is not None}
    stored = read_json(name)
    folder.mkdir(exist_ok=True)
    if layout == "hf":
        (folder / "preprocessor_config.json").write_text(json.dumps(stored["images"]))
        stored = stored["model"]
    (folder / CONFIG_FILES[layout]).write_text(json.dumps(stored))
    path = folder / WEIGHTS_FILES[layout]
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    return config, tensors


def assert_trees_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", names.LAYOUTS)
def test_there_and_back_is_bit_identical(name, layout, tmp_path):
    config, tensors = write_golden(name, tmp_path / "source")
    loaded = load_weights(tmp_path / "source")
    assert loaded.config == config
    if name == "siglip" and layout == "open_clip":
        with pytest.raises(ValueError, match="timm has no SigLIP tower.*use hf or tutelage"):
            save_weights(tmp_path / "out", config, loaded.params, layout)
        return
    save_weights(tmp_path / "out", config, loaded.params, layout, tokenizer_hash="abc")
    again = load_weights(tmp_path / "out")
    # The initial values of a model are no part of trained weights; only tutelage keeps them.
    assert dataclasses.replace(again.config, logit_scale_init=0, logit_bias_init=None) == (
        dataclasses.replace(config, logit_scale_init=0, logit_bias_init=None)
    )
    assert again.tokenizer_hash == "abc"
    assert_trees_equal(again.params, loaded.params)

    original = "open_clip" if name.startswith("open_clip") else "hf"
    save_weights(tmp_path / "back", again.config, again.params, original)
    back = safetensors.numpy.load_file(tmp_path / "back" / WEIGHTS_FILES[original])
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype and back[key].shape == value.shape
        np.testing.assert_array_equal(back[key], value)


def test_loads_into_the_sharded_layout(tmp_path):
    config, tensors = write_golden("gelu", tmp_path)
    mesh = meshes.make_mesh(2, 4, 1)
    boxed = jax.eval_shape(lambda key: init_params(CLIP(config), key), jax.random.key(0))
    shardings = meshes.tree_shardings(mesh, boxed)
    params = load_weights(tmp_path, shardings).params
    assert jax.tree.map(lambda x: x.sharding, params) == shardings
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert_trees_equal(params, names.from_torch(tensors, config, "hf"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(dtype, tmp_path):
    _, _, arrays = read_golden("gelu")
    low = {name: value.astype(dtype) for name, value in section(arrays, "weights/").items()}
    config, _ = write_golden("gelu", tmp_path, **low)
    expected = {name: value.astype(np.float32) for name, value in low.items()}
    params = load_weights(tmp_path).params
    assert_trees_equal(params, names.from_torch(expected, config, "hf"))


def test_wrappers_and_buffers_in_names_are_seen_through(tmp_path):
    _, _, arrays = read_golden("open_clip_gelu")
    tensors = section(arrays, "weights/")
    text = {name for name in tensors if not name.startswith(("visual.", "logit_scale"))}
    wrapped = {f"module.{'text.' * (name in text)}{name}": v for name, v in tensors.items()}
    buffers = {"module.attn_mask": np.zeros((9, 9)), "context_length": np.array(9)}
    config, _ = write_golden(
        "open_clip_gelu", tmp_path, **wrapped, **buffers, **dict.fromkeys(tensors)
    )
    params = load_weights(tmp_path).params
    assert_trees_equal(params, names.from_torch(tensors, config, "open_clip"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logit_scale": None, "text_projection.weight": None}, "missing logit_scale, text_proj"),
        ({"extra": np.zeros(3, np.float32)}, "surplus extra"),
        (
            {"text_projection.weight": np.zeros((16, 12), np.float32)},
            r"misshapen text_projection.weight \(16, 12\) instead of \(12, 16\)",
        ),
        ({"logit_scale": np.array(3)}, "logit_scale is I64"),
        (
            {"module.logit_scale": np.array(3, np.float32)},
            "under two names, logit_scale and module.logit_scale; keep one",
        ),
    ],
)
def test_wrong_tensors_are_named(changes, message, tmp_path):
    write_golden("gelu", tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_weights(tmp_path)
    assert "model.safetensors" in str(error.value) and "\n" not in str(error.value)


def change_json(path, **changes):
    """Sets keys of a json file, dotted ones inside."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        inner = content
        for section_name in sections:
            inner = inner[section_name]
        inner[last] = value
    path.write_text(json.dumps(content))


def test_swapped_config_is_named(tmp_path):
    # Another shape shows in the tensors.
    write_golden("gelu", tmp_path)
    change_json(tmp_path / "config.json", vision_config__intermediate_size=48)
    with pytest.raises(ValueError, match=r"misshapen vision_model.*\(40,\) instead of \(48,\)"):
        load_weights(tmp_path)
    # Another activation does not; the fingerprint in a file of ours has it.
    config, tensors = write_golden("gelu", tmp_path)
    params = names.from_torch(tensors, config, "hf")
    save_weights(tmp_path / "out", config, params, "hf")
    change_json(tmp_path / "out/config.json", vision_config__hidden_act="quick_gelu")
    with pytest.raises(ValueError, match="vision.activation is gelu there and quick_gelu here"):
        load_weights(tmp_path / "out")


def test_quickgelu_weights_do_not_run_with_gelu(tmp_path):
    config, _ = write_golden("quick_gelu", tmp_path)
    with pytest.raises(ValueError) as error:
        load_weights(tmp_path, config=zoo.with_activation(config, "gelu"))
    assert str(error.value) == (
        f"{tmp_path} is another model than the one asked for: "
        "text.activation is quick_gelu there and gelu here; "
        "vision.activation is quick_gelu there and gelu here"
    )


def test_image_statistics_and_tokenizer_are_compared(tmp_path):
    config, tensors = write_golden("gelu", tmp_path)
    other = dataclasses.replace(config.vision, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match=r"vision.mean is \(0.48.* and \(0.5, 0.5, 0.5\) here"):
        load_weights(tmp_path, config=dataclasses.replace(config, vision=other))
    params = load_weights(tmp_path, tokenizer_hash="any").params  # nothing is stored there
    save_weights(tmp_path / "out", config, params, "tutelage", tokenizer_hash="abc")
    load_weights(tmp_path / "out", tokenizer_hash="abc")
    with pytest.raises(ValueError, match="tokenizer_hash is abc there and xyz here"):
        load_weights(tmp_path / "out", tokenizer_hash="xyz")


def test_bare_state_dict_is_asked_about_not_guessed(tmp_path):
    config, _ = write_golden("open_clip_quick_gelu", tmp_path)
    path = (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="bare state dict.*name the shape"):
        load_weights(path)
    assert load_weights(path, config=config).config.vision.activation == "quick_gelu"


def test_openai_tag_of_open_clip_implies_quickgelu(tmp_path):
    write_golden("open_clip_gelu", tmp_path / "vit.openai")
    path = tmp_path / "vit.openai/open_clip_config.json"
    content = json.loads(path.read_text())
    del content["model_cfg"]["quick_gelu"]
    path.write_text(json.dumps(content))
    assert find_weights(tmp_path / "vit.openai").config.text.activation == "quick_gelu"
    other = (tmp_path / "vit.openai").rename(tmp_path / "vit.laion")
    assert find_weights(other).config.text.activation == "gelu"


def test_image_size_changes_on_request_only_and_aloud(tmp_path, monkeypatch):
    config, _ = write_golden("gelu", tmp_path)
    larger = dataclasses.replace(config, vision=dataclasses.replace(config.vision, image_size=24))
    with pytest.raises(ValueError, match="vision.image_size is 16 there and 24 here"):
        load_weights(tmp_path, config=larger)
    said = []
    monkeypatch.setattr(load.logging, "warning", lambda text, *args: said.append(text % args))
    params = load_weights(tmp_path, config=larger, resize=True).params
    assert said == [f"{tmp_path}: position embeddings interpolated from 16 to 24 pixels"]
    assert params["vision"]["position_embedding"].shape == (37, 24)
    assert load_weights(tmp_path, config=config, resize=True) and len(said) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "blip"}, "model_type is 'blip'; there are: clip, siglip"),
        ({"text_config__hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"text_config__num_attention_heads": 3}, "hidden size"),
        ({"text_config__hidden_size": "wide"}, "config.json: .*hidden_size"),
    ],
)
def test_wrong_hf_config_is_one_line(change, message, tmp_path):
    write_golden("gelu", tmp_path)
    change_json(tmp_path / "config.json", **change)
    with pytest.raises(ValueError, match=message) as error:
        load_weights(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_cfg__vision_cfg__layers": [3, 4, 6, 3]}, "layers is a list: a ResNet"),
        ({"model_cfg__vision_cfg__ls_init_value": 0.1}, "vision_cfg.ls_init_value = 0.1"),
        ({"model_cfg__text_cfg__hf_model_name": "roberta"}, "text_cfg.hf_model_name = 'roberta'"),
        ({"model_cfg__text_cfg__pool_type": "last"}, "text_cfg.pool_type = 'last'"),
        ({"model_cfg": {"embed_dim": 3}}, "open_clip_config.json has no 'vision_cfg'"),
        (
            {"model_cfg__vision_cfg__timm_model_name": "convnext"},
            "'convnext' is a tower of timm",
        ),
    ],
)
def test_wrong_open_clip_config_is_one_line(change, message, tmp_path):
    write_golden("open_clip_gelu", tmp_path)
    if "model_cfg__vision_cfg__timm_model_name" in change:
        change |= {
            "model_cfg__text_cfg__pool_type": "last",
            "model_cfg__text_cfg__no_causal_mask": True,
            "model_cfg__text_cfg__proj_bias": True,
        }
    change_json(tmp_path / "open_clip_config.json", **change)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path)


def leaves(content, path=()):
    """The path of every value of nested dicts, the dicts themselves too."""
    if path:
        yield "__".join(path)
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))


@pytest.mark.parametrize("name", ["gelu", "siglip", "open_clip_quick_gelu"])
@pytest.mark.parametrize("value", [None, "x", [1], {"a": 1}, 0, -3, 1.5])
def test_nonsense_anywhere_in_a_config_is_one_line(name, value, tmp_path):
    """A value that still makes a shape is fine; whatever else happens is said in one line."""
    write_golden(name, tmp_path)
    for path in tmp_path.glob("*.json"):
        whole = path.read_text()
        for key in leaves(json.loads(whole)):
            change_json(path, **{key: value})
            try:
                names.parameter_shapes(find_weights(tmp_path).config)
            except ValueError as error:
                assert str(tmp_path) in str(error) and "\n" not in str(error), key
            path.write_text(whole)


def test_timms_config_beside_open_clips_is_passed_over(tmp_path):
    """As timm's repositories on the hub have it: its own image tower in the same folder."""
    config, _ = write_golden("open_clip_quick_gelu", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_224"}))
    safetensors.numpy.save_file({"head.weight": np.zeros(3)}, tmp_path / "model.safetensors")
    found = find_weights(tmp_path)
    assert (found.layout, found.config) == ("open_clip", config)


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder, and no hub id"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="files of no layout.*config.json and model.safe"):
        find_weights(tmp_path)
    write_golden("gelu", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="no preprocessor_config.json"):
        find_weights(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        find_weights(tmp_path)

    def offline(*args, **kwargs):
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        FileNotFoundError, match=r"openai/x is no folder here.* \(no network\); download"
    ):
        find_weights("openai/x")


def test_hub_id_is_read_like_a_folder(tmp_path, monkeypatch):
    config, _ = write_golden("quick_gelu", tmp_path)
    asked = []

    def snapshot(hub_id, allow_patterns):
        asked.append((hub_id, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_weights("hf-hub:openai/clip").config == config
    assert all(hub_id == "openai/clip" for hub_id, _ in asked)
    # Not the same weights in every format.
    assert asked[-1][1] == ["model.safetensors"]


def test_save_does_not_write_over_anything(tmp_path):
    config, tensors = write_golden("gelu", tmp_path)
    with pytest.raises(ValueError, match="not empty"):
        save_weights(tmp_path, config, names.from_torch(tensors, config, "hf"), "hf")


def test_save_copies_the_tokenizer(tmp_path):
    config, tensors = write_golden("gelu", tmp_path / "in")
    (tmp_path / "in/vocab.json").write_text("{}")
    (tmp_path / "in/merges.txt").write_text("a b")
    source = find_weights(tmp_path / "in")
    assert source.tokenizer == tmp_path / "in"
    params = names.from_torch(tensors, config, "hf")
    save_weights(tmp_path / "out", config, params, "open_clip", tokenizer=source.tokenizer)
    assert (tmp_path / "out/merges.txt").read_text() == "a b"
    assert find_weights(tmp_path / "out").tokenizer == tmp_path / "out"


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_shapes_survive_every_config_file(name):
    config = dataclasses.replace(zoo.shape(name), logit_scale_init=0.0)
    back = configs.from_hf(*configs.to_hf(config))
    assert dataclasses.replace(back, logit_scale_init=0.0) == config
    if "SigLIP" in name:  # timm runs this tower with the exact GELU
        config = zoo.with_activation(config, "gelu")
    back = configs.from_open_clip(json.loads(json.dumps(configs.to_open_clip(config))))
    vision = dataclasses.replace(config.vision, crop_corner="nearest")
    config = dataclasses.replace(config, vision=vision)
    assert dataclasses.replace(back, logit_scale_init=0.0) == config


def test_layouts_refuse_what_they_cannot_hold():
    config, _, _ = read_golden("gelu")
    biased = dataclasses.replace(config, logit_bias_init=-10.0)
    with pytest.raises(ValueError, match="hf has no names.*a logit_bias; use the layout tutelage"):
        names.table("hf", biased)
    assert "logit_bias" in [entry.path for entry in names.table("open_clip", biased)]
    one = dataclasses.replace(config.vision, activation="quick_gelu")
    with pytest.raises(ValueError, match="QuickGELU in one tower"):
        configs.to_open_clip(dataclasses.replace(config, vision=one))
    end = dataclasses.replace(config.text, eos_token_id=3)
    with pytest.raises(ValueError, match="pools at the largest id, 40.*is 3"):
        configs.to_open_clip(dataclasses.replace(config, text=end))
    two = dataclasses.replace(config.text, eos_token_id=2)
    with pytest.raises(ValueError, match="takes an end token of 2 for the largest id"):
        configs.to_hf(dataclasses.replace(config, text=two))
