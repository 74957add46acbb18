"""SigLIP's tokenizers against the libraries' (tests/golden/make_siglip_tokenizer.py)."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.core import meta
from transformers import Siglip2Tokenizer

from data.siglip_tokenizer import SiglipTokenizer
from data.tokenizer import load_tokenizer
from errors import UserError
from models import zoo
from models.clip import CLIP, init_params
from pretrained.load import save_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "siglip_tokenizer"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def open_clips(folder, clean: str):
    text = {"tokenizer_kwargs": {"clean": clean}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}}))


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "tokenizer")


@pytest.mark.parametrize("library", ["transformers", "open_clip"])
def test_ids_are_those_of_the_weights_own_library(folder, library):
    if library == "open_clip":
        open_clips(folder, "canonicalize")
    tokenizer = load_tokenizer(folder)
    ids, cut = tokenizer.encode(EXPECTED["texts"], 16)
    np.testing.assert_array_equal(ids, EXPECTED[library])
    whole, _ = tokenizer.encode(EXPECTED["texts"], 200)
    np.testing.assert_array_equal(cut, whole[:, 15] != tokenizer.eos_token_id)
    assert cut.any() and not cut.all()


def test_siglip_2_lowers_and_keeps_punctuation(tmp_path):
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghij!,'▁", "▁a", "▁b"]
    merges = [("▁", "a"), ("▁", "b")]
    own = Siglip2Tokenizer({piece: i for i, piece in enumerate(pieces)}, merges)
    own.save_pretrained(tmp_path)
    texts = ["A bad! face", "a, b", "", "bad " * 9]
    ids, cut = load_tokenizer(tmp_path).encode(texts, 8)
    for row, text, was_cut in zip(ids, texts, cut, strict=True):
        pieces = own(text, add_special_tokens=False)["input_ids"]
        expected = [*pieces[:7], 1]
        assert row.tolist() == expected + [0] * (8 - len(expected))
        assert was_cut == (len(pieces) > 7)


def test_it_is_the_same_after_saving(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert isinstance(again, SiglipTokenizer)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert (again.vocab_size, again.eos_token_id) == (tokenizer.vocab_size, 1)


@pytest.mark.parametrize("layout", ["hf", "open_clip", "tutelage"])
def test_weights_that_are_converted_keep_their_tokenizer(layout, folder, tmp_path):
    vocab_size = load_tokenizer(folder).vocab_size
    shape = zoo.shape("ViT-B-16-SigLIP")
    text = dataclasses.replace(shape.text, vocab_size=vocab_size, width=64, heads=1, layers=1)
    vision = dataclasses.replace(shape.vision, activation="gelu")  # as timm has it
    config = dataclasses.replace(shape, text=text, vision=vision)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        meta.unbox(jax.eval_shape(functools.partial(init_params, CLIP(config)), jax.random.key(0))),
    )
    stamp = load_tokenizer(folder).fingerprint()
    save_weights(tmp_path / "out", config, params, layout, tokenizer=folder, tokenizer_hash=stamp)
    assert load_tokenizer(tmp_path / "out").fingerprint() == stamp


def test_another_cleaning_is_another_tokenizer(folder):
    first = load_tokenizer(folder).fingerprint()
    open_clips(folder, "canonicalize")
    assert load_tokenizer(folder).fingerprint() != first
    open_clips(folder, "whitespace")
    with pytest.raises(ValueError, match="cleaned by 'whitespace'; there are: siglip, lower"):
        load_tokenizer(folder)


@pytest.mark.parametrize("value", [5, [1], {"content": 5}, True])
def test_nonsense_in_its_configs_is_one_line(folder, value):
    config = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": value}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "</s>"}))
    for content in ({"model_cfg": value}, {"model_cfg": {"text_cfg": value}}):
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        with pytest.raises(UserError):
            load_tokenizer(folder)


def test_no_padding_token_and_no_tokenizer_json_are_named(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>"})
    )
    with pytest.raises(ValueError, match="no pad_token"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    with pytest.raises(ValueError, match="spiece.model, which is not read; write tokenizer.json"):
        load_tokenizer(folder)
