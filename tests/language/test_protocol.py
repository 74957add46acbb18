"""The protocol, held by the scripted backend: what is asked, refused, cut and normalised."""

import math

import numpy as np
import pytest

from language import base
from language.scripted import open as scripted


def test_backends_are_found_by_name():
    assert "scripted" in base.available()
    model = base.load("scripted", answers={"a": "b"})
    assert model.generate(["a"])[0][0].text == "b"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: base.load("scriptd"), r"unknown language model 'scriptd' \(nearest: scripted\)"),
        (lambda: base.load("scripted", answer={}), r"'answer' \(nearest: answers\)"),
        (lambda: base.require(scripted({}), "generate", "embed"), "cannot embed; it can generate"),
        (lambda: scripted({}).score(["a"], ["b"]), "cannot score"),
        (lambda: scripted({"a": "b"}).generate("a"), "prompts is one text, 'a'"),
        (lambda: scripted({"a": "b"}).generate(["a", None]), r"prompts\[1\] is None, no text"),
        (lambda: scripted({"a": "b"}).generate(["a"], stop="\n"), "stop is the text"),
        (lambda: scripted({"a": "b"}).generate(["a"], stop=("",)), "stop is"),
        (lambda: scripted({"a": "b"}).generate(["a"], n=0), "n is 0; it must be at least 1"),
        (lambda: scripted({"a": "b"}).generate(["a"], top_p=0.0), "top_p is 0.0"),
        (lambda: scripted({"a": "b"}).generate(["a"], temperature=-1.0), "temperature is -1.0"),
        (lambda: scripted({"a": "b"}).generate(["a"], max_tokens=0), "max_tokens is 0"),
        (lambda: scripted(scores={}).score(["a"], []), "1 prompts, but 0 continuations"),
        (lambda: scripted(scores={}).choices(["a"], []), "no options"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_that_knows_no_answer_says_which():
    with pytest.raises(base.ModelError, match="has nothing for 'c'"):
        scripted({"a": "b"}).generate(["c"])


def test_completions_end_at_stop_texts_and_at_max_tokens():
    model = scripted({"a": "one two\nthree four"})
    (whole,), (cut,), (short,) = (
        model.generate(["a"], **options)[0]
        for options in ({}, {"stop": ("three", "\n")}, {"max_tokens": 3})
    )
    assert (whole.text, whole.finish_reason) == ("one two\nthree four", "stop")
    assert (cut.text, cut.finish_reason) == ("one two", "stop")
    assert (short.text, short.finish_reason, short.tokens) == ("one two\nthree", "length", 3)


def test_the_seed_decides_whatever_is_asked_beside():
    model = scripted(lambda prompt, rng: f"{prompt}{rng.integers(10**9)}")
    alone = model.generate(["b"], n=3, seed=7)
    assert model.generate(["a", "b"], n=3, seed=7)[1] == alone[0]
    assert len({c.text for c in alone[0]}) == 3
    assert model.generate(["b"], n=3, seed=8) != alone


def test_choices_are_normalised_over_the_options():
    scores = {("q", " yes"): math.log(0.3), ("q", " no way"): math.log(0.1)}
    model = scripted(scores=scores)
    np.testing.assert_allclose(np.exp(model.choices(["q"], [" yes", " no way"])), [[0.75, 0.25]])
    # Of the means, log .3 and log .1 / 2, the second is the larger.
    by_mean = np.exp(model.choices(["q"], [" yes", " no way"], normalize_length=True))
    expected = np.array([0.3, math.sqrt(0.1)])
    np.testing.assert_allclose(by_mean, [expected / expected.sum()])
    assert model.calls == {"choices": 2, "score": 0}
    assert model.choices([], ["a", "b"]).shape == (0, 2)


def test_embeddings_are_unit_vectors():
    vectors = scripted(embeddings={"a": [3.0, 4.0], "b": [0.0, 2.0]}).embed(["a", "b"])
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    assert vectors.dtype == np.float32
