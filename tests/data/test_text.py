"""Prompts with completions: what counts, what is cut, what lies where, and what is refused."""

import json

import numpy as np
import pytest

from data import preferences, sources, text
from errors import UserError
from tests.language.small import letter_tokenizer

END = 96


def write(root, rows):
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def first_batch(source, **options):
    options = {"batch_size": len(source), "seed": 0, "context_length": 64} | options
    batches = text.train_batches(source, tokenizer=letter_tokenizer(), **options)
    batch = next(batches)
    batches.close()
    return batch


def texts_of(batch):
    """(prompt, completion) of each row, by its mask."""
    decode = letter_tokenizer().decode
    pairs = []
    flat = (batch[name].reshape(-1, batch[name].shape[-1]) for name in ("tokens", "completion"))
    for tokens, completion in zip(*flat, strict=True):
        counted = tokens[completion]
        before = tokens[: np.argmax(completion)]
        pairs.append((decode(before), decode(counted[counted != END]), END in counted))
    return sorted(pairs)


ROWS = [{"prompt": "q" * n, "completion": "a" * (9 - n)} for n in range(1, 9)]


def test_the_completion_and_its_end_count(tmp_path):
    batch = first_batch(sources.load("text", write(tmp_path, ROWS)), max_tokens=12)
    expected = [(row["prompt"], row["completion"], True) for row in ROWS]
    assert texts_of(batch) == sorted(expected)
    assert batch["tokens"].shape == (8, 12) and not batch["truncated"].any()
    assert text.batch_fields(0) == ("tokens", "completion")


def test_what_is_too_long_loses_its_end_and_is_counted(tmp_path):
    batch = first_batch(sources.load("text", write(tmp_path, ROWS)), max_tokens=9)
    assert texts_of(batch) == sorted((r["prompt"], r["completion"][: 9 - len(r["prompt"])], False)
                                     for r in ROWS)  # fmt: skip
    assert batch["truncated"].all()
    short = [*ROWS[:7], {"prompt": "q" * 9, "completion": "a"}]
    with pytest.raises(
        UserError, match=r"line 8: its prompt of 9 tokens leaves no room in 9; raise"
    ):
        first_batch(sources.load("text", write(tmp_path, short)), max_tokens=9)


def test_every_token_has_its_place_in_the_rows(tmp_path):
    source = sources.load("text", write(tmp_path, ROWS))
    batch = first_batch(source, max_tokens=24, text_rows=(0.25, 0.5), shards=2)
    slots = batch["text_slots"]
    assert slots.shape == (2, 2, 24)  # 4 texts of 10 tokens a shard: two in a row
    tokens = batch["tokens"].reshape(2, -1)
    for shard in range(2):
        placed = slots[shard][slots[shard] < tokens.shape[1]]
        assert len(set(placed)) == len(placed) == 40
        np.testing.assert_array_equal(np.sort(placed), np.flatnonzero(_real(batch, shard)))


def _real(batch, shard):
    """Which tokens of a shard are no padding: ten of each text."""
    return np.tile(np.arange(24) < 10, 4)


def test_a_token_of_id_0_is_no_padding(tmp_path):
    """! is token 0: the rows of the packed batch must hold it."""
    rows = [{"prompt": "a!", "completion": "!!"}] * 2
    batch = first_batch(sources.load("text", write(tmp_path, rows)), max_tokens=8, text_rows=(0.5,))
    assert (batch["text_slots"] < 16).sum() == 10
    assert batch["completion"].sum() == 6


def test_preferences_hold_both_completions(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no, no"} for i in range(4)]
    source = sources.load("preferences", write(tmp_path, rows))
    batch = first_batch(source, max_tokens=12)
    assert batch["tokens"].shape == batch["completion"].shape == (4, 2, 12)
    assert batch["preferred"].tolist() == [[True, False]] * 4
    chosen = {name: batch[name][:, 0] for name in ("tokens", "completion")}
    assert texts_of(chosen) == [(f"p{i}", "yes", True) for i in range(4)]
    assert preferences.batch_fields(0) == ("tokens", "completion", "preferred")


def test_hosts_and_resumed_runs_see_the_same_batches(tmp_path):
    source = sources.load("text", write(tmp_path, ROWS * 2))

    def tokens(step, **options):
        options = {"batch_size": 8, "seed": 3, "context_length": 64, "max_tokens": 12} | options
        batches = text.train_batches(source, tokenizer=letter_tokenizer(), **options)
        for _ in range(step):
            next(batches)
        batch = next(batches)["tokens"]
        batches.close()
        return batch

    np.testing.assert_array_equal(tokens(3), tokens(0, start_step=3))
    hosts = [tokens(1, process_index=i, process_count=2) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(hosts), tokens(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n', "line 1: .* should have a text 'completion'"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": 1, "completion": ""}\n', "line 2"),
        ("[1]\n", "line 1: .* should have a text 'prompt'"),
        ("{\n", "line 1 is not valid JSON"),
        ("\n", "holds no record"),
    ],
)
def test_lines_that_are_no_records_are_named(tmp_path, content, message):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        sources.load("text", tmp_path)
