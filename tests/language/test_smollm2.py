"""SmolLM2-135M itself, in Flax beside llama.cpp, which is another implementation of it."""

import json
import urllib.request

import numpy as np
import pytest

from data.text_tokenizer import load_text_tokenizer
from language import base
from pretrained.find import find_weights
from pretrained.load import load_tokenizer_of, load_weights, save_weights
from tests.language.conftest import PACKAGE

pytestmark = pytest.mark.slow

PROMPTS = (
    "The capital of France is",
    "Replace one adjective.\nCaption: a red bus on a wide street\nChanged: a",
    "Two dogs run across a green field while a man in a blue shirt",
    "def fibonacci(n):\n    if n < 2:\n        return",
)
TEXTS = (
    "A dog's  ball, 1234 times!\n\n\tIt isn't naïve — 東京 🙂 (x_1 += 2.5)",
    "",
    " leading and trailing ",
    "<|im_start|>user\nHi<|im_end|>\n",
    "THE\r\nEND...   'tis   we'll",
)


def ask(llama_cpp, path, **body):
    """What the server answers outside of the protocol."""
    request = urllib.request.Request(
        llama_cpp.url.replace("/v1/", path),
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_texts_have_the_tokens_of_llama_cpp(smollm2, llama_cpp, tmp_path):
    tokenizer = load_tokenizer_of(find_weights(PACKAGE))
    tokenizer.save(tmp_path / "tokenizer")
    again = load_text_tokenizer(tmp_path / "tokenizer")
    for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        theirs = ask(llama_cpp, "/tokenize", content=text, parse_special=True)["tokens"]
        assert ids == theirs, text
        assert again.encode([text]) == [ids]
    assert again.fingerprint() == tokenizer.fingerprint()
    assert tokenizer.decode(tokenizer.encode(TEXTS[:1])[0]) == TEXTS[0]


def test_log_probabilities_are_those_of_llama_cpp(local_smollm2, llama_cpp):
    """The ten likeliest tokens after each prompt, within 0.02 nats; not the argmax alone."""
    differences = []
    for prompt in PROMPTS:
        answer = ask(
            llama_cpp, "/completion", prompt=prompt, n_predict=1, temperature=0, n_probs=10
        )
        top = answer["completion_probabilities"][0]["top_logprobs"]
        tokens = [token["token"] for token in top]
        scores = local_smollm2.score([prompt] * len(tokens), tokens)
        assert all(score.tokens == 1 for score in scores)
        ours = np.array([score.log_probability for score in scores])
        differences.append(np.abs(ours - [token["logprob"] for token in top]).max())
    assert max(differences) < 0.02, differences


def test_both_backends_say_the_same(local_smollm2, llama_cpp):
    for model in (local_smollm2, llama_cpp):
        ((paris,),) = model.generate(["The capital of France is"], max_tokens=1)
        assert (paris.text, paris.tokens, paris.finish_reason) == (" Paris", 1, "length")
        assert paris.log_probability == pytest.approx(-0.25, abs=0.05)
    options = [" Paris", " London", " New"]
    ours, theirs = (
        model.choices(["The capital of France is"], options) for model in (local_smollm2, llama_cpp)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_a_folder_of_hugging_faces_is_the_same_model(smollm2, local_smollm2, tmp_path):
    loaded = load_weights(find_weights(PACKAGE))
    save_weights(tmp_path / "hf", loaded.config, loaded.params, "hf", tokenizer=loaded.tokenizer)
    again = base.load("local", weights=tmp_path / "hf", batch_size=4)
    assert again.name.split("-")[-1] == local_smollm2.name.split("-")[-1]  # the checksum
    (one,), (other,) = (m.score([PROMPTS[2]], [" and a hat"]) for m in (again, local_smollm2))
    assert one == other
