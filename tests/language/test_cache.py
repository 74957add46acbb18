"""The cache: nothing is asked twice, whatever is killed, cut or shared."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from language.base import LanguageModel, ModelError
from language.cache import cached
from language.scripted import open as scripted

ROOT = Path(__file__).parents[2]


def draws(name="planted"):
    return scripted(lambda prompt, rng: f"{prompt} {rng.integers(10**9)}", name=name)


def test_an_answer_is_asked_for_once(tmp_path):
    model = draws()
    first = cached(model, tmp_path).generate(["a", "b", "a"], n=2, temperature=1.0)
    assert model.calls["generate"] == 2
    again = cached(model, tmp_path)
    assert again.generate(["b", "a", "c"], n=2, temperature=1.0)[:2] == [first[1], first[0]]
    assert (again.hits, again.misses) == (2, 1) and model.calls["generate"] == 3


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"n": 2}, {"temperature": 0.5}, {"max_tokens": 3}, {"stop": ("x",)},
     {"top_k": 2}, {"top_p": 0.5}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_every_option_is_part_of_the_key(tmp_path, other):
    model = draws()
    kept = cached(model, tmp_path)
    kept.generate(["a"])
    kept.generate(["a"], **other)
    assert model.calls["generate"] == 2


def test_models_of_other_names_do_not_share(tmp_path):
    one, two = draws("a/b"), draws("a:b")  # one name in the file system
    cached(one, tmp_path).generate(["a"])
    cached(two, tmp_path).generate(["a"])
    assert one.calls["generate"] == two.calls["generate"] == 1


def test_progress_is_told_with_the_time_left(tmp_path, monkeypatch):
    """Of what is asked for; what is on disk takes no time."""
    told, model = [], draws()
    model.batch_size = 2
    monkeypatch.setattr("language.cache.SAY_EVERY_S", 0)
    kept = cached(model, tmp_path, told.append)
    kept.generate(list("abcde"))
    assert told == [f"planted: {done}/3 parts, 0 min left" for done in (1, 2, 3)]
    kept.generate(list("abcde"))
    assert len(told) == 3


def test_all_verbs_are_kept(tmp_path):
    model = scripted(
        scores=lambda prompt, continuation: -float(len(continuation)),
        embeddings=lambda text: np.array([len(text), 1 / 3]),
    )
    kept = cached(model, tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(
            kept.choices(["a"], ["b", "cc"]), model.choices(["a"], ["b", "cc"])
        )
        assert kept.score(["a", "b"], ["c", "d"]) == model.score(["a", "b"], ["c", "d"])
        np.testing.assert_array_equal(kept.embed(["a", "bb"]), model.embed(["a", "bb"]))
    assert model.calls == {"choices": 3, "score": 6, "embed": 6}
    assert kept.choices([], ["b", "c"]).shape == (0, 2)
    with pytest.raises(ValueError, match="cannot generate"):
        kept.generate(["a"])


def test_it_can_be_read_edited_and_deleted_by_hand(tmp_path):
    model = draws()
    kept = cached(model, tmp_path)
    kept.generate(["naïve"])
    (file,) = tmp_path.rglob("*.jsonl")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["model"] == "planted" and record["ask"]["prompt"] == "naïve"
    record["answer"][0]["text"] = "by hand"
    file.write_text(json.dumps(record) + "\n", encoding="utf-8")
    assert cached(model, tmp_path).generate(["naïve"])[0][0].text == "by hand"
    file.unlink()
    kept.generate(["naïve"])
    assert model.calls["generate"] == 2


@pytest.mark.parametrize("left", [b'{"model": "planted", "as', b"\xff\xfe\n", b"[1]\n", b"{}\n"])
def test_damaged_lines_are_asked_for_again(tmp_path, left):
    model = draws()
    first = cached(model, tmp_path).generate(["a"])
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(left)
    assert cached(model, tmp_path).generate(["a"]) == first
    assert cached(model, tmp_path).generate(["a"]) == first
    assert model.calls["generate"] == 2


class Slow(LanguageModel):
    """Answers when all that it likes to have at once are asked."""

    name, capabilities, concurrency = "slow", frozenset({"generate"}), 4

    def __init__(self):
        self.barrier = threading.Barrier(4)

    def _generate(self, prompts, sampling):
        self.barrier.wait(10)
        if prompts == ["bad"]:
            raise ModelError("no answer to bad")
        return scripted(lambda prompt, rng: prompt)._generate(prompts, sampling)


def test_what_came_back_is_kept_when_another_fails(tmp_path):
    with pytest.raises(ModelError, match="no answer to bad"):
        cached(Slow(), tmp_path).generate(["a", "bad", "c", "d"])
    kept = cached(scripted({}, name="slow"), tmp_path)
    assert [answer[0].text for answer in kept.generate(["a", "c", "d"])] == ["a", "c", "d"]


_WRITER = """
import sys, time
from language.cache import cached
from language.scripted import open as scripted
model = scripted(lambda prompt, rng: f"{prompt} " * 2000, name="shared")
kept = cached(model, sys.argv[1])
print("ready", flush=True)
for i in range(int(sys.argv[2]), 10**9):
    kept.generate([str(i)])
"""


def test_processes_share_it_and_may_be_killed(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, tmp_path, str(start)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for start in (0, 50)
    ]
    reader = cached(scripted({}, name="shared"), tmp_path)
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 30
    while not all(_has(reader, str(i)) for i in (20, 70)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    for i in (*range(21), *range(50, 71)):
        assert reader.generate([str(i)])[0][0].text.split()[0] == str(i)
    records = [line for f in tmp_path.rglob("*.jsonl") for line in f.read_bytes().splitlines(True)]
    whole = sum(line.endswith(b"}\n") for line in records)
    assert whole >= len(records) - 2  # at most the line that each was writing


def _has(model, prompt):
    try:
        return model.generate([prompt])
    except ModelError:
        return False
