"""DPO beside TRL's trainer: tokens, losses and gradients (tests/golden/make_dpo.py)."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from data import preferences
from methods import base
from models import zoo
from models.clip import embedder
from models.transformer import Compute
from pretrained import llama, names
from tests.language.small import letter_tokenizer
from tests.pretrained.goldens import section

GOLDEN = Path(__file__).parents[1] / "golden" / "dpo.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def batch(golden, tmp_path_factory):
    """The records through our pipeline."""
    root = tmp_path_factory.mktemp("preferences")
    lines = [json.dumps(record) + "\n" for record in json.loads(str(golden["records"]))]
    (root / "train.jsonl").write_text("".join(lines))
    batches = preferences.train_batches(
        preferences.load(root),
        tokenizer=letter_tokenizer(),
        batch_size=len(lines),
        seed=0,
        context_length=64,
        text_rows=(0.5,),
    )
    batch = next(batches)
    batches.close()
    return batch


def rows(tokens, mask):
    """What a batch holds, in no order: each text with the tokens that count."""
    return sorted((tuple(t[t > 0]), tuple(t[m])) for t, m in zip(tokens, mask, strict=True))


def test_texts_are_tokens_and_masks_as_in_trl(golden, batch):
    tokens, completion = (batch[name].reshape(6, -1) for name in ("tokens", "completion"))
    ids, mask = golden["input_ids"], golden["completion_mask"].astype(bool)
    # TRL pads with the end token, and 0 is a letter that is not in these texts.
    lengths = [len(m) - np.argmax(m[::-1]) for m in mask]
    ids = [np.where(np.arange(len(i)) < n, i, 0) for i, n in zip(ids, lengths, strict=True)]
    assert rows(tokens, completion) == rows(ids, mask)
    assert not batch["truncated"].any() and batch["preferred"].tolist() == [[True, False]] * 3


@pytest.mark.parametrize("name", ["loss", "loss_with_nll"])
def test_loss_and_gradients_are_trls(golden, batch, name):
    config = llama.from_hf(json.loads(str(golden["config"])))
    embed = embedder(zoo.make(config, Compute()))
    policy, reference = (
        names.from_torch(section(golden, f"{part}/"), config, "hf")
        for part in ("weights", "reference")
    )
    weight = golden["nll_weight"] if name == "loss_with_nll" else 0.0
    method = base.load("dpo", {"beta": float(golden["beta"]), "nll_weight": float(weight)})
    batch = {key: value for key, value in batch.items() if key != "truncated"}

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        teacher = embed(reference, batch)
        return method.loss(embed(params, batch), teacher, batch, ())[0]

    value, gradient = loss(policy)
    np.testing.assert_allclose(value, golden[name], rtol=1e-5)
    if name == "loss":
        theirs = names.from_torch(section(golden, "gradients/"), config, "hf")
        for path, expected in traverse_util.flatten_dict(theirs, sep="/").items():
            ours = traverse_util.flatten_dict(gradient, sep="/")[path]
            np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-4, err_msg=path)
