"""The endpoint against a server that misbehaves: bounded, counted, and the key nowhere."""

import contextlib
import logging
import pickle
import time

import numpy as np
import pytest

from language import base
from language.cache import cached
from language.endpoint import Endpoint
from tests.language.fault_server import FaultServer


@contextlib.contextmanager
def serving(faults=(), answer=lambda prompt, seed: f" re {prompt} {seed}", **options):
    options = {"timeout": 0.5, "first_wait": 0.01, "retries": 2} | options
    with FaultServer(answer, faults) as server:
        with contextlib.closing(Endpoint(server.url, "planted", **options)) as model:
            yield server, model


@pytest.mark.parametrize("chat", [False, True])
def test_completions_and_what_they_came_to(chat):
    with serving(chat=chat, prices=(2.0, 10.0)) as (server, model):
        (one, two), (three, _) = model.generate(["a b", "c"], n=2, seed=5, stop=("\n",))
        assert (one.text, two.text, three.text) == (" re a b 5", " re a b 6", " re c 5")
        assert (one.tokens, one.log_probability, one.finish_reason) == (4, -2.0, "stop")
        assert (model.usage.requests, model.usage.prompt_tokens) == (2, 3)
        assert model.usage.completion_tokens == 14
        assert model.usage.cost == pytest.approx((3 * 2 + 14 * 10) / 1e6)
        path, _, body = server.requests[0]
    assert path == ("/v1/chat/completions" if chat else "/v1/completions")
    assert {"n": 2, "seed": 5, "stop": ["\n"], "top_k": 0, "min_p": 0.0}.items() <= body.items()


def test_no_request_asks_for_more_completions_than_a_server_gives():
    with serving(largest_n=2) as (server, model):
        ((*completions,),) = model.generate(["a"], n=5, seed=3)
        assert [c.text for c in completions] == [f" re a {seed}" for seed in range(3, 8)]
        assert [body.get("n", 1) for _, _, body in server.requests] == [2, 2, 1]


def test_a_server_of_openais_own_fields_is_sent_no_others():
    with serving(openai_only=True, log_probabilities=False) as (server, model):
        (completions,) = model.generate(["a"], n=2)
        assert [c.log_probability for c in completions] == [None, None]
        assert [c.tokens for c in completions] == [3, 3]
        own = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}
        assert [body.keys() for _, _, body in server.requests] == [own, own]
        with pytest.raises(ValueError, match="top_k is none of OpenAI's own fields"):
            model.generate(["a"], top_k=3)


PASSING = ["429", "500", "hang", "drip", "truncated", "wrong", "html", "empty", "cut"]
KINDS = {
    "429": "status 429", "500": "status 500", "hang": "ReadTimeout", "drip": "ReadTimeout",
    "cut": "RemoteProtocolError",
}  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_counted(fault):
    start = time.monotonic()
    with serving([fault, fault]) as (_, model):
        assert model.generate(["a"])[0][0].text == " re a 0"
        assert model.usage.problems == {KINDS.get(fault, "unreadable answer"): 2}
        assert model.usage.requests == 1
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("fault", PASSING)
def test_tries_have_an_end(fault):
    with serving([fault] * 3) as (server, model):
        with pytest.raises(base.ModelError, match="/v1/completions, asked 3 times: "):
            model.generate(["a"])
        assert len(server.requests) == 3 and model.usage.requests == 0


def test_what_is_refused_for_good_is_not_tried_again():
    with serving(["401"]) as (server, model):
        with pytest.raises(base.ModelError, match="asked 1 times: status 401"):
            model.generate(["a"])
        assert len(server.requests) == 1


def test_nobody_listens():
    with serving() as (server, model):
        pass
    with contextlib.closing(Endpoint(server.url, "m", retries=1, first_wait=0)) as model:
        with pytest.raises(base.ModelError, match="asked 2 times: ConnectError"):
            model.generate(["a"])


def test_requests_at_once_are_bounded():
    def slowly(prompt, seed):
        time.sleep(0.05)
        return prompt

    with serving(answer=slowly, concurrency=3) as (server, model):
        answers = model.generate([str(i) for i in range(12)])
        assert [answer[0].text for answer in answers] == [str(i) for i in range(12)]
        assert server.most_at_once == 3


def test_a_failure_leaves_the_other_answers_in_the_cache(tmp_path):
    with serving(["401"], concurrency=1) as (server, model):
        kept = cached(model, tmp_path)
        with pytest.raises(base.ModelError):
            kept.generate(["a", "b"])
        assert [a[0].text for a in kept.generate(["a", "b"])] == [" re a 0", " re b 0"]
        asked = len(server.requests)
        kept.generate(["a", "b"])
        assert len(server.requests) == asked


def test_the_key_is_in_the_header_and_nowhere_else(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("PLANTED_KEY", "sk-secret")
    caplog.set_level(logging.DEBUG)
    with serving(["500", "401"], key_variable="PLANTED_KEY") as (server, model):
        with pytest.raises(base.ModelError, match=r"refused Bearer \*\*\*") as caught:
            model.generate(["a"])
        cached(model, tmp_path).generate(["a"])
        assert all(head["Authorization"] == "Bearer sk-secret" for _, head, _ in server.requests)
        told = [str(caught.value), repr(model), model.name, caplog.text]
        told += [file.read_text() for file in tmp_path.rglob("*.jsonl")]
        told.append(pickle.dumps(model).decode("latin-1"))
        assert not [text for text in told if "secret" in text]
        with contextlib.closing(pickle.loads(pickle.dumps(model))) as again:
            assert again.generate(["b"])[0][0].text == " re b 0"


def test_choices_are_read_from_the_first_tokens():
    for chat in (False, True):
        with serving(chat=chat) as (_, model):
            chosen = np.exp(model.choices(["a", "b"], [" no", " yes"]))
            share = 1 / (1 + np.exp(-1))
            np.testing.assert_allclose(chosen, [[1 - share, share]] * 2)
            with pytest.raises(base.ModelError, match="' yes sir' is none of the 2 likeliest"):
                model.choices(["a"], [" yes", " yes sir"])


def test_embeddings_come_in_order_and_only_where_there_are_some():
    with serving(embedding_model="e") as (_, model):
        vectors = model.embed(["aa", ""])
    np.testing.assert_allclose(vectors, [np.array([2, 1]) / 5**0.5, [0, 1]], rtol=1e-6)
    with serving() as (_, model):
        for verb in ("embed", "score"):
            with pytest.raises(ValueError, match=f"planted cannot {verb}"):
                getattr(model, verb)(*([["a"]] * (1 + (verb == "score"))))


def test_what_changes_an_answer_is_in_the_name():
    url = "http://127.0.0.1:1/v1"
    options = [{}, {"chat": True}, {"extra": {"min_p": 0.1}}, {"embedding_model": "e"}]
    with contextlib.ExitStack() as stack:
        names = set()
        for option in options:
            model = stack.enter_context(contextlib.closing(Endpoint(url, "m", **option)))
            names.add(model.name)
    assert len(names) == 4 and "m" in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "give that of the API, such as"),
        ({"url": "http://"}, "give that of the API"),
        ({"url": "http://me:sk-1@host/v1"}, "a key comes from the environment only"),
        ({"url": "http://host/v1?key=sk-1"}, "a key comes from the environment only"),
        ({"key_variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which is to hold the key"),
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"modl": "m"}, r"'modl' \(nearest: model\)"),
    ],
)
def test_bad_options_are_said_at_once(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        base.load("endpoint", **{"url": "http://127.0.0.1:1/v1", "model": "m"} | options)
    assert "sk-1" not in str(caught.value)


def test_what_an_endpoint_needs_is_named():
    with pytest.raises(ValueError, match="language model endpoint needs the option 'model'"):
        base.load("endpoint", url="http://127.0.0.1:1/v1")
