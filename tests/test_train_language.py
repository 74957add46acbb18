"""train.py on a small language model: what is learnt, gone on with after a stop, opened again."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from errors import UserError
from language import base, scripted
from pretrained.find import find_weights
from pretrained.load import load_weights
from teaching import arte
from teaching.base import Item
from teaching.students import LanguageStudent
from tests.language import small
from tests.test_train import losses
from tpu_configs import smollm2_dpo, smollm2_sft
from train import train
from training.logging import read_metrics

pytestmark = pytest.mark.slow
# Prompts of two letters, answered by the first of them.
PROMPTS = [a + b + ":" for a in "abcdef" for b in "uvwxyz"]
CONFIG = dataclasses.replace(small.CONFIG, context_length=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The model and both files of data."""
    root = tmp_path_factory.mktemp("language")
    small.write_folder(root / "model", CONFIG)
    rows = [{"prompt": p, "completion": p[0] * 3} for p in PROMPTS]
    pairs = [{"prompt": p, "chosen": p[0] * 3, "rejected": p[1] * 3} for p in PROMPTS]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return root


def short(module, root, **changes):
    config = module.get_config()
    config.data.root, config.init["from"] = str(root), str(root / "model")
    defaults = {
        "batch_size": 8,
        "epochs": None,
        "total_steps": 24,
        "log_every_steps": 1,
        "checkpoint.every_steps": 12,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_steps": 2,
        "data.max_tokens": 16,
        "train.lora.rank": 4,
    }
    config.update_from_flattened_dict(defaults | changes)
    return config


@pytest.fixture(scope="module")
def tuned(root, tmp_path_factory):
    """A run of supervised fine-tuning."""
    workdir = tmp_path_factory.mktemp("runs") / "sft"
    train(short(smollm2_sft, root), workdir)
    return workdir


def test_completions_are_learnt_and_a_run_opens_as_a_backend(root, tuned):
    values = losses(tuned)
    assert values[24] < values[1] / 2
    before, after = (
        base.load("local", weights=path, batch_size=4, block=8) for path in (root / "model", tuned)
    )
    prompts, answers = ["au:", "dx:"], ["aaa", "ddd"]
    scores = [m.score(prompts, answers) for m in (before, after)]
    for worse, better in zip(*scores, strict=True):
        assert better.log_probability > worse.log_probability + 3
    # LoRA's products are in the matrices, and what did not learn is as it was.
    old, new = (load_weights(find_weights(path)).params for path in (root / "model", tuned))
    np.testing.assert_array_equal(old["embedding"]["embedding"], new["embedding"]["embedding"])
    assert np.abs(np.asarray(old["blocks"]["up"]["kernel"] - new["blocks"]["up"]["kernel"])).max()


def test_a_stopped_run_goes_on_as_if_it_had_not(root, tuned, tmp_path):
    whole, again = losses(tuned), tmp_path / "run"
    shutil.copytree(tuned, again)
    shutil.rmtree(again / "checkpoints" / "24")
    train(short(smollm2_sft, root), again)
    assert losses(again) == whole


def test_packed_or_not_the_losses_are_the_same(root, tuned, tmp_path):
    whole = losses(tuned)
    train(short(smollm2_sft, root, **{"data.text_rows": (), "total_steps": 3}), tmp_path / "run")
    # The learning rate's schedule is another, so only the first step's loss is the same.
    assert losses(tmp_path / "run")[1] == pytest.approx(whole[1], rel=1e-5)


def test_what_is_preferred_becomes_likelier(root, tmp_path):
    config = short(smollm2_dpo, root)
    config.data.options.file = "pairs.jsonl"
    train(config, tmp_path / "run")
    first, *_, last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert first["dpo"] == pytest.approx(np.log(2), abs=1e-5)  # the reference is the policy
    assert first["log_ratio_chosen"] == pytest.approx(0, abs=1e-4)
    assert last["dpo"] < 0.4 and last["preference_accuracy"] == 1
    assert last["log_ratio_chosen"] > last["log_ratio_rejected"]


def test_a_teacher_learns_what_helps_its_student(root, tmp_path):
    """ARTE: a student is right where the rationale has a z; the tuned teacher writes more of it."""

    def answers(prompt, rng):
        rationale = prompt.partition("\n\n")[0].rpartition(".")[2]
        return "<answer>1</answer>" if "z" in rationale else "?"

    student = LanguageStudent(scripted.open(answers), arte.Tagged("d"))
    drafts = [arte.Draft(q, "1", ("ab", "za", "bb", "a")) for q in "cdefghij"]
    preferred = [Item(str(i), "s", str(i), "1") for i in range(4)]
    scored = arte.score_drafts(drafts, student, preferred)
    assert all(draft.scores == (0.0, 1.0, 0.0, 0.0) for draft in scored)
    rows = arte.rationale_pairs(scored, "d")
    assert len(rows) == len(drafts)
    folder = small.write_folder(tmp_path / "model")
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = short(smollm2_dpo, tmp_path, **{"data.max_tokens": 160, "checkpoint.every_steps": 24})
    config.data.options.file = "pairs.jsonl"
    train(config, tmp_path / "run")
    prompts = [arte.rationale_prompt("d", q) for q in "klm"]  # other questions
    z, others = [
        [
            np.exp([s.log_probability for s in model.score(prompts, [f" {letter}"] * 3)]).mean()
            for model in (
                base.load("local", weights=path, batch_size=4, block=32)
                for path in (folder, tmp_path / "run")
            )
        ]
        for letter in "za"
    ]
    assert z[1] > 2 * z[0] and others[1] < z[1]


def test_other_data_than_the_method_needs_is_refused(root, tmp_path):
    config = short(smollm2_dpo, root)
    config.data.source = "text"
    with pytest.raises(UserError, match="the method needs preferred"):
        train(config, tmp_path / "run")
    config = short(smollm2_sft, root)
    config.init["from"] = ""
    config.data.tokenizer = str(root / "model")
    with pytest.raises(UserError):
        train(config, tmp_path / "run")
