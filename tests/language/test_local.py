"""The local backend on a small random model, against whole passes without cache or batch."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from language import base
from language.cache import cached
from models import zoo
from models.transformer import Compute
from pretrained.load import load_weights
from tests.language import small

PROMPTS = ["a", "the cat sat on", "", "x" * 70, "the cat sat by", "y" * 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.write_folder(tmp_path_factory.mktemp("small") / "model")


def open_local(folder, **options):
    return base.load("local", weights=folder, **{"batch_size": 4, "block": 8} | options)


@pytest.fixture(scope="module")
def local(folder):
    return open_local(folder)


@pytest.fixture(scope="module")
def log_probabilities(folder):
    """ids -> float64 [n, vocab_size] of what follows each, by one pass over all."""
    loaded = load_weights(folder)
    model = zoo.make(loaded.config, Compute())
    forward = jax.jit(functools.partial(model.apply, {"params": loaded.params}))

    def of(ids):
        padded = np.pad(ids, (0, 128 - len(ids)))[None]  # what follows cannot be seen
        return base.log_softmax(forward(padded)[0, : len(ids)])

    return of


def ids_of(text):
    (ids,) = small.letter_tokenizer().encode([text])
    return ids or [95]


def test_tokens_are_counted(local):
    read, written = local.usage.prompt_tokens, local.usage.completion_tokens
    drafts = local.generate(PROMPTS, n=2, max_tokens=3)
    assert local.usage.prompt_tokens - read == sum(len(ids_of(prompt)) for prompt in PROMPTS)
    assert local.usage.completion_tokens - written == sum(c.tokens for two in drafts for c in two)


def test_greedy_completions_are_those_of_whole_passes(local, log_probabilities):
    decode = small.letter_tokenizer().decode
    for prompt, (completion,) in zip(PROMPTS, local.generate(PROMPTS, max_tokens=12), strict=True):
        ids, total = ids_of(prompt), 0.0
        begun = len(ids)
        while len(ids) < begun + 12 and ids[-1] != 96:
            values = log_probabilities(ids)[-1]
            ids.append(int(values.argmax()))
            total += values.max()
        assert completion.text == decode(ids[begun:]), prompt
        assert completion.tokens == len(ids) - begun
        assert completion.finish_reason == ("stop" if ids[-1] == 96 else "length")
        assert completion.log_probability == pytest.approx(total, abs=1e-3)


def test_scores_and_choices_are_those_of_whole_passes(local, log_probabilities):
    continuations = [" dog", "e", "x" * 30, "", "y", " down and slept"]
    scores = local.score(PROMPTS, continuations)
    for prompt, continuation, score in zip(PROMPTS, continuations, scores, strict=True):
        before, after = ids_of(prompt), ids_of(continuation) if continuation else []
        values = log_probabilities(before + after)[len(before) - 1 :]
        expected = sum(values[i, token] for i, token in enumerate(after))
        assert score.tokens == len(after)
        assert score.log_probability == pytest.approx(expected, abs=1e-3)
    chosen = local.choices(["the cat"], [" sat", " a"])
    sums = [score.log_probability for score in local.score(["the cat"] * 2, [" sat", " a"])]
    np.testing.assert_allclose(chosen, [base.log_softmax(sums)])


def test_embeddings_are_means_of_the_last_states(folder, local):
    loaded = load_weights(folder)
    model = zoo.make(loaded.config, Compute())
    texts = ["the cat sat on", "x" * 70]
    for text, vector in zip(texts, local.embed(texts), strict=True):
        tokens = np.array([ids_of(text)])
        hidden, _ = jax.jit(functools.partial(model.apply, method="hidden"))(
            {"params": loaded.params}, tokens
        )
        mean = np.asarray(hidden)[0].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


SAMPLING = dict(n=2, temperature=1.0, top_k=50, top_p=0.9, max_tokens=10, seed=3)


def test_completions_do_not_depend_on_what_is_asked_beside_or_before(folder, local):
    together = local.generate(PROMPTS, **SAMPLING)
    assert local.generate(PROMPTS[::-1], **SAMPLING)[::-1] == together
    fresh = open_local(folder)
    assert [fresh.generate([prompt], **SAMPLING)[0] for prompt in PROMPTS] == together
    assert local.generate(PROMPTS, **SAMPLING | {"seed": 4}) != together
    assert all(first != second for first, second in together)


def test_a_stop_text_ends_a_completion_before_it(local, log_probabilities):
    options = {"temperature": 1.0, "max_tokens": 24, "seed": 1}
    ((whole,),) = local.generate(["the cat"], **options)
    stop = whole.text[5:7]
    assert whole.text.index(stop) == 5
    ((cut,),) = local.generate(["the cat"], stop=("never said", stop), **options)
    assert (cut.text, cut.finish_reason) == (whole.text[:5], "stop")
    # The token that completes the stop text counts, as an end token does.
    ids = ids_of("the cat") + ids_of(whole.text[:7])
    values = log_probabilities(ids)[len(ids_of("the cat")) - 1 :]
    expected = sum(values[i, token] for i, token in enumerate(ids[len(ids_of("the cat")) :]))
    assert cut.log_probability == pytest.approx(expected, abs=1e-3)
    assert cut.tokens < whole.tokens


@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 2, "tensor": 2}])
def test_a_mesh_changes_nothing(folder, local, mesh):
    meshed = open_local(folder, mesh=mesh)
    assert meshed.name == local.name
    for one, other in zip(
        local.generate(PROMPTS[:3], max_tokens=4),
        meshed.generate(PROMPTS[:3], max_tokens=4),
        strict=True,
    ):
        assert one[0].text == other[0].text
        assert one[0].log_probability == pytest.approx(other[0].log_probability, abs=1e-3)
    (one,), (other,) = (model.score(["the cat"], [" sat"]) for model in (local, meshed))
    assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)


def test_the_cache_knows_weights_apart(folder, local, tmp_path):
    other = open_local(small.write_folder(tmp_path / "model", seed=1))
    assert other.name != local.name
    for model in (local, other):
        kept = cached(model, tmp_path / "cache")
        first = kept.generate(["a"], max_tokens=4)
        assert kept.generate(["a"], max_tokens=4) == first and (kept.hits, kept.misses) == (1, 1)


def test_what_cannot_be_opened_or_read_is_said(folder, tmp_path):
    with pytest.raises(base.ModelError, match="takes 16 tokens, and 'xxxx.* has 30 with 4 to come"):
        open_local(folder, context=16).generate(["x" * 30], max_tokens=4)
    (folder_2 := tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder_2 / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match="brings no tokenizer"):
        open_local(folder_2)
    (folder_2 / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot read the tokenizer in"):
        open_local(folder_2)
    with pytest.raises(ValueError, match="batch_size=3 is not divisible by the 2 shards"):
        open_local(folder, batch_size=3, mesh={"data": 2, "tensor": 4})


def test_half_precision_is_near(folder, local):
    (near,) = open_local(folder, dtype="bfloat16").score(["the cat"], [" sat"])
    (score,) = local.score(["the cat"], [" sat"])
    assert near.log_probability == pytest.approx(score.log_probability, rel=0.05)
    assert dataclasses.replace(near, log_probability=0) == dataclasses.replace(
        score, log_probability=0
    )
