"""A tokenizer that is not the model's is refused on every way in; a grown vocabulary is read."""

import dataclasses
import json

import numpy as np
import pytest

import eval as evaluation
import experiment
from data.tokenizer import load_tokenizer, train_tokenizer
from encoders import models as opened
from errors import UserError
from pretrained import fingerprint
from pretrained.convert import main as convert
from pretrained.find import find_weights
from tests.pretrained.test_load import write_golden
from tpu_configs import base

CAPTIONS = ["a dog on a mat", "two cats in the rain"]
WORLD = base.WORLD_WEIGHTS


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, 530)


def with_vocabulary(folder, name, size, tokenizer=None, eos=2):
    """A golden model's folder with so many ids, as a grown or padded vocabulary leaves it."""
    table = (
        "text_model.embeddings.token_embedding.weight"
        if name == "gelu"
        else ("token_embedding.weight")
    )
    write_golden(name, folder, **{table: np.zeros((size, 16), np.float32)})
    path = folder / ("config.json" if name == "gelu" else "open_clip_config.json")
    content = json.loads(path.read_text())
    if name == "gelu":
        content["text_config"] |= {"vocab_size": size, "eos_token_id": eos}
    else:
        content["model_cfg"]["text_cfg"]["vocab_size"] = size
    path.write_text(json.dumps(content))
    if tokenizer:
        tokenizer.save(folder / "t")
        for file in (folder / "t").iterdir():
            file.rename(folder / file.name)
    return find_weights(folder)


@pytest.mark.parametrize("name", ["gelu", "open_clip_gelu"])
@pytest.mark.parametrize("more", [0, 3, 64])
def test_the_largest_id_that_occurs_is_the_tokenizers_end(name, more, tokenizer, tmp_path):
    found = with_vocabulary(tmp_path, name, tokenizer.vocab_size + more, tokenizer)
    assert found.config.text.eos_token_id == tokenizer.eos_token_id
    fingerprint.check_tokenizer(found.config, tokenizer, "here")
    fitted = experiment.fitted(tokenizer, found)
    assert fitted["vocab_size"] == tokenizer.vocab_size + more
    assert fitted["eos_token_id"] == tokenizer.eos_token_id
    # What is written again says so.
    convert([str(tmp_path), str(tmp_path / "out"), "--layout=hf"])
    assert find_weights(tmp_path / "out").config.text.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["gelu", "open_clip_gelu"])
def test_a_grown_vocabulary_without_its_tokenizer_is_refused(name, tokenizer, tmp_path):
    found = with_vocabulary(tmp_path, name, tokenizer.vocab_size + 3)
    message = f"end token is {tokenizer.vocab_size + 2} .* tokenizer's is {tokenizer.eos_token_id}"
    for check in (
        lambda: experiment.fitted(tokenizer, found),
        lambda: opened.restore(found, evaluation.meshes.make_mesh(), tokenizer),
    ):
        with pytest.raises(UserError, match=message):
            check()


def test_an_end_that_is_stated_is_kept(tokenizer, tmp_path):
    found = with_vocabulary(tmp_path, "gelu", tokenizer.vocab_size + 3, tokenizer, eos=7)
    assert found.config.text.eos_token_id == 7
    with pytest.raises(UserError, match="the model's end token is 7 of"):
        experiment.fitted(tokenizer, found)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tokenizer, tmp_path):
    end = tokenizer.eos_token_id
    found = with_vocabulary(tmp_path, "gelu", tokenizer.vocab_size, tokenizer, eos=end)
    text = dataclasses.replace(found.config.text, vocab_size=end + 1)
    larger = type("Larger", (), {"eos_token_id": end, "vocab_size": end + 2})
    config = dataclasses.replace(found.config, text=text)
    with pytest.raises(UserError, match=f"here: the model has {end + 1} ids, and the tokenizer"):
        fingerprint.check_tokenizer(config, larger, "here")


def test_another_models_tokenizer_is_refused_wherever_it_is_named(shared, tmp_path):
    other = shared / "data/cases/tokenizer"
    assert load_tokenizer(other).eos_token_id != load_tokenizer(WORLD).eos_token_id
    with pytest.raises(UserError, match="no text would end for the model; give the tokenizer"):
        evaluation.score(
            WORLD,
            {"benchmarks": ("world",), "world.scenes": 4},
            tmp_path / "r.json",
            tokenizer=str(other),
        )
    with pytest.raises(UserError, match="no text would end for the model"):
        experiment.fitted(load_tokenizer(other), find_weights(WORLD))
    assert not (tmp_path / "r.json").exists()
