"""Language models beside transformers' torch models: values, gradients, folders in and out."""

import dataclasses
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from models import zoo
from models.clip import embedder
from models.llama import Llama, RopeScaling, empty_cache, unstack
from models.transformer import Compute
from pretrained import fingerprint, llama, names
from pretrained.find import find_weights
from pretrained.load import load_weights, save_weights
from tests.pretrained.goldens import section

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = ("tied", "untied", "llama3", "qwen2")
make_llama = runpy.run_path(str(GOLDEN / "make_llama.py"))


def read_golden(kind):
    with np.load(GOLDEN / f"llama_{kind}.npz") as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("config"))), arrays


def write_folder(folder, config, weights):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def golden(request, tmp_path):
    """(weights that were loaded, arrays) of a golden file."""
    config, arrays = read_golden(request.param)
    folder = write_folder(tmp_path / "golden", config, section(arrays, "weights/"))
    return load_weights(folder), arrays


def check_against(loaded, arrays):
    """Holds logits, loss and gradients against torch's, to 1e-5."""
    model, tokens = zoo.make(loaded.config, Compute()), arrays["tokens"]

    def loss(params):
        return -embedder(model)(params, {"tokens": tokens})[:, 1:].mean()

    logits = jax.jit(lambda params: model.apply({"params": params}, tokens))(loaded.params)
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)
    value, gradient = jax.jit(jax.value_and_grad(loss))(loaded.params)
    np.testing.assert_allclose(value, arrays["loss"], rtol=1e-6)
    theirs = names.from_torch(section(arrays, "gradients/"), loaded.config, "hf")
    for path, expected in traverse_util.flatten_dict(theirs, sep="/").items():
        ours = traverse_util.flatten_dict(gradient, sep="/")[path]
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("golden", KINDS, indirect=True)
def test_values_and_gradients_are_torchs(golden):
    check_against(*golden)


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_torchs_live(kind, tmp_path):
    pytest.importorskip("torch")
    config, tokens = make_llama["config_of"](kind), make_llama["tokens_of"](7)
    arrays = make_llama["run"](make_llama["make_model"](config, seed=8), tokens)
    folder = write_folder(tmp_path / "live", config, section(arrays, "weights/"))
    check_against(load_weights(folder), arrays | {"tokens": tokens})


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_is_written(kind, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    config, arrays = read_golden(kind)
    loaded = load_weights(write_folder(tmp_path / "in", config, section(arrays, "weights/")))
    save_weights(tmp_path / "out", loaded.config, loaded.params, "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = model(torch.tensor(arrays["tokens"]).long()).logits.numpy()
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)


@pytest.mark.parametrize("golden", KINDS, indirect=True)
def test_a_folder_that_is_written_and_read_is_the_same(golden, tmp_path):
    loaded, _ = golden
    for layout in ("hf", "tutelage"):
        save_weights(tmp_path / layout, loaded.config, loaded.params, layout)
        again = load_weights(tmp_path / layout)
        assert again.config == loaded.config
        jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


@pytest.mark.parametrize("golden", ["llama3", "qwen2"], indirect=True)
def test_layers_laid_apart_and_a_cache_change_nothing(golden):
    """Six tokens at once, then one by one, the rows at different places."""
    loaded, arrays = golden
    tokens = arrays["tokens"]
    rows, length = tokens.shape
    model = Llama(loaded.config, stacked=False)
    forward = jax.jit(lambda *args: model.apply(args[0], *args[1:], method="hidden"))
    params, cache = {"params": unstack(loaded.params)}, empty_cache(loaded.config, rows, 32)
    at = np.tile(np.arange(6), (rows, 1))
    for step in range(length - 6 + rows):
        taken = np.take_along_axis(tokens, at, axis=1)
        hidden, cache = forward(params, taken, at, None, cache)
        logits = model.apply(params, hidden, method="logits")
        expected = np.take_along_axis(arrays["logits"], at[..., None], axis=1)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        # Row i is i tokens behind the first.
        at = np.clip(6 + step - np.arange(rows), 0, length - 1)[:, None]


@pytest.mark.parametrize("golden", ["llama3", "qwen2"], indirect=True)
def test_packed_texts_see_only_themselves(golden):
    loaded, arrays = golden
    embed = jax.jit(embedder(zoo.make(loaded.config, Compute())))
    tokens = arrays["tokens"][:, :6]
    apart = embed(loaded.params, {"tokens": tokens})
    # Three texts of 6, 4 and 5 tokens, the first and last in one row, of 12 places.
    n = tokens.size
    slots = np.full((1, 2, 12), n, np.int32)
    slots[0, 0] = [*range(6), *range(12, 17), n]
    slots[0, 1, :4] = range(6, 10)
    batch = {"tokens": tokens, "text_slots": slots}
    packed = np.array(embed(loaded.params, batch))
    for row, size in enumerate((6, 4, 5)):
        np.testing.assert_allclose(packed[row, :size], apart[row, :size], atol=1e-5)
        assert not packed[row, size:].any() and packed[row, 0] == 0


def test_the_logits_of_long_rows_are_made_in_parts():
    """256 tokens are two parts; the closed form is softmax of the whole."""
    config = dataclasses.replace(llama.from_hf(read_golden("untied")[0]), layers=1)
    model = zoo.make(config, Compute())
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 256))
    params = jax.jit(model.init)(jax.random.key(1), tokens)
    logits = np.asarray(jax.jit(model.apply)(params, tokens), np.float64)[:, :-1]
    picked = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    expected = picked - np.logaddexp.reduce(logits, axis=-1)
    got = np.asarray(jax.jit(embedder(model))(params["params"], {"tokens": tokens}))
    np.testing.assert_allclose(got[:, 1:], expected, atol=1e-5)
    assert not got[:, 0].any()


def test_several_files_are_one(tmp_path):
    config, arrays = read_golden("untied")
    weights = section(arrays, "weights/")
    whole = load_weights(write_folder(tmp_path / "whole", config, weights))
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    index = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(weights)}
    for file in set(index.values()):
        part = {name: weights[name] for name in weights if index[name] == file}
        safetensors.numpy.save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    jax.tree.map(np.testing.assert_array_equal, load_weights(folder).params, whole.params)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(
        ValueError, match="is no index of safetensors files|should hold a JSON object"
    ):
        load_weights(folder)


def test_an_output_matrix_written_down_twice_is_no_surplus(tmp_path):
    config, arrays = read_golden("tied")
    weights = section(arrays, "weights/")
    twice = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    load_weights(write_folder(tmp_path / "twice", config, twice))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma2"}, "model_type is 'gemma2'; there are: clip, siglip, llama"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"mlp_bias": True}, "mlp_bias = True is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = .* is not supported"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding window is not supported"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type = 'yarn' is not supported",
        ),
        ({"num_key_value_heads": 3}, "heads, 4, is no multiple of its kv_heads, 3"),
        ({"head_dim": 9}, "even rotary dimension, but got `head_dim`=9"),
        ({"eos_token_id": None}, r"end_token_ids is \(\); it must be ids below vocab_size"),
        ({"eos_token_id": 41}, r"end_token_ids is \(41,\)"),
        ({"rms_norm_eps": 0.0}, "norm_epsilon is 0.0"),
        ({"hidden_size": 32}, "misshapen"),
    ],
)
def test_what_the_model_does_not_have_is_refused_by_name(change, message, tmp_path):
    config, arrays = read_golden("untied")
    folder = write_folder(tmp_path / "other", config | change, section(arrays, "weights/"))
    with pytest.raises(ValueError, match=message):
        load_weights(folder)


def test_configs_of_releases_before_5_are_read(tmp_path):
    config, arrays = read_golden("llama3")
    rope = config.pop("rope_parameters")
    old = config | {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "generation").mkdir()
    folder = write_folder(tmp_path / "old", old, section(arrays, "weights/"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    found = find_weights(folder).config
    assert found.rope_theta == 500 and found.rope_scaling == RopeScaling(8, 1, 4, 16)
    assert found.end_token_ids == (2, 5)


def test_fingerprints_are_read_back_and_compared(tmp_path):
    config, arrays = read_golden("llama3")
    loaded = load_weights(write_folder(tmp_path / "a", config, section(arrays, "weights/")))
    stored = json.loads(json.dumps(fingerprint.fingerprint(loaded.config, "hash")))
    assert fingerprint.config_of(stored, "here") == loaded.config
    other = dataclasses.replace(loaded.config, rope_theta=1.0)
    with pytest.raises(ValueError, match="rope_theta is 500.0 there and 1.0 here"):
        load_weights(tmp_path / "a", config=other)
    save_weights(tmp_path / "b", loaded.config, loaded.params, "hf", tokenizer_hash="one")
    with pytest.raises(ValueError, match="tokenizer_hash is one there and two here"):
        load_weights(tmp_path / "b", tokenizer_hash="two")
    with pytest.raises(ValueError, match="has no names for a language model"):
        save_weights(tmp_path / "c", loaded.config, loaded.params, "open_clip")
