import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import pipeline, sources, tokenizer

RECORDS, BATCH = 23, 8
STEPS = RECORDS // BATCH  # an epoch


def record(i, **changes):
    """A record that can be recognised by its grey and by its captions."""
    return {
        "image": np.full((20, 24, 3), 10 * i, np.uint8),
        "captions": [f"picture {i} caption {c}" for c in range(3)],
        "negatives": [[f"negative {i} {c} {k}" for k in range(3)] for c in range(3)],
        "key": f"made.json[{i}]",
    } | changes


SOURCE = [record(i) for i in range(RECORDS)]
TOKENIZER = tokenizer.train_tokenizer(
    [f"picture negative caption {i}" for i in range(RECORDS)], 560
)
KNOWN = [text for r in SOURCE for text in r["captions"] + sum(r["negatives"], [])]
TEXTS = {row.tobytes(): text for row, text in zip(TOKENIZER.encode(KNOWN)[0], KNOWN, strict=True)}


def batches(count, source=SOURCE, **options):
    defaults = {"tokenizer": TOKENIZER, "batch_size": BATCH, "seed": 5, "image_size": 16}
    iterator = pipeline.train_batches(source, **defaults | options)
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def ids(batch):
    """Which records a batch holds."""
    assert (batch["image"] == batch["image"][:, :1, :1, :1]).all()
    return (batch["image"][:, 0, 0, 0] // 10).tolist()


def texts_of(tokens):
    """The one text among those of SOURCE that has these ids, for each row."""
    padded = np.zeros((len(tokens), 77), np.int32)
    padded[:, : tokens.shape[1]] = tokens
    return [TEXTS[row.tobytes()] for row in padded]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_shapes_and_dtypes():
    (batch,) = batches(1, num_negatives=2)
    length = batch["text"].shape[1]
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "image": ((8, 16, 16, 3), np.uint8),
        "text": ((8, length), np.int32),
        "truncated": ((8,), bool),
        "filled": ((8,), np.int32),
        "negatives": ((8, 2, length), np.int32),
        "negatives_valid": ((8, 2), bool),
    }
    assert batches(1)[0].keys() == {"image", "text", "truncated", "filled"}


def test_an_epoch_shows_a_record_at_most_once_and_another_order_follows():
    found = [ids(batch) for batch in batches(4 * STEPS)]
    epochs = [sum(found[i : i + STEPS], []) for i in range(0, len(found), STEPS)]
    for epoch in epochs:
        assert len(set(epoch)) == STEPS * BATCH
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set(sum(epochs, [])) == set(range(RECORDS))  # the remainder changes


def test_seeds_differ_and_epochs_of_neighbouring_seeds_are_not_each_other():
    first, second = ([ids(b) for b in batches(2 * STEPS, seed=seed)] for seed in (5, 6))
    assert first[:STEPS] != second[:STEPS]
    assert first[STEPS:] != second[:STEPS]


def test_resuming_equals_skipping():
    straight = batches(10, num_negatives=2)
    for start in (1, STEPS, 7):
        assert_same(batches(10 - start, num_negatives=2, start_step=start), straight[start:])


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_gives_the_same_global_batches(count):
    whole = batches(5, num_negatives=2)
    options = {"num_negatives": 2, "process_count": count}
    parts = [batches(5, process_index=i, **options) for i in range(count)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers):
    options = {"num_negatives": 2, "start_step": 1}
    assert_same(batches(5, workers=workers, **options), batches(5, **options))


def test_captions_are_drawn_anew_and_match_their_images():
    drawn = {}
    for batch in batches(60 * STEPS):
        for i, text in zip(ids(batch), texts_of(batch["text"]), strict=True):
            assert text in SOURCE[i]["captions"]
            drawn.setdefault(i, []).append(SOURCE[i]["captions"].index(text))
    shares = np.bincount(sum(drawn.values(), [])) / sum(map(len, drawn.values()))
    assert np.abs(shares - 1 / 3).max() < 0.05  # the standard deviation of 960 draws is 0.015
    assert all(set(draws) == {0, 1, 2} for draws in drawn.values())


def test_negatives_are_those_of_the_drawn_caption():
    for slots in (2, 3, 5):
        for batch in batches(STEPS, num_negatives=slots):
            captions = texts_of(batch["text"])
            present = min(slots, 3)
            expected_valid = [[True] * present + [False] * (slots - present)] * BATCH
            assert batch["negatives_valid"].tolist() == expected_valid
            for row, i in enumerate(ids(batch)):
                found = texts_of(batch["negatives"][row, :present])
                c = SOURCE[i]["captions"].index(captions[row])
                assert len(set(found)) == present
                assert set(found) <= set(SOURCE[i]["negatives"][c])


def test_every_negative_gets_its_turn():
    found = {
        (i, text)
        for batch in batches(80 * STEPS, num_negatives=1)
        for i, negatives in zip(ids(batch), batch["negatives"], strict=True)
        for text in texts_of(negatives)
    }
    assert len(found) == RECORDS * 9


def test_negatives_of_the_whole_record():
    source = [record(i, negatives=[f"negative {i} 0 0"]) for i in range(RECORDS)]
    for batch in batches(STEPS, source, num_negatives=2):
        found = texts_of(batch["negatives"][:, 0])
        assert found == [f"negative {i} 0 0" for i in ids(batch)]
        assert batch["negatives_valid"].tolist() == [[True, False]] * BATCH


def test_negatives_are_made_for_the_drawn_caption():
    def make(record, i, rng):
        caption = record["captions"][i]
        return [caption, ""], [True, False], int(caption.endswith("1"))

    # Whether or not the records bring some themselves.
    for source in (SOURCE, [record(i, negatives=[]) for i in range(RECORDS)]):
        for batch in batches(STEPS, source, num_negatives=2, make_negatives=make):
            captions = texts_of(batch["text"])
            np.testing.assert_array_equal(batch["negatives"][:, 0], batch["text"])
            assert batch["negatives_valid"].tolist() == [[True, False]] * BATCH
            assert batch["filled"].tolist() == [int(text.endswith("1")) for text in captions]


@pytest.mark.parametrize("negatives", [False, True])
def test_texts_are_cut_to_the_shortest_length_that_keeps_every_end_token(negatives):
    source = [
        record(i, captions=["x " * i], negatives=["y " * (2 * i)] if i else ["y"])
        for i in range(RECORDS)
    ]
    lengths = (4, 8, 16, 24)
    seen = set()
    options = {"batch_size": 2, "num_negatives": int(negatives), "text_lengths": lengths}
    for batch in batches(22, source, **options):
        longest = max(i * (2 if negatives else 1) + 2 for i in ids(batch))
        length = batch["text"].shape[1]
        assert length == min(n for n in (*lengths, 77) if n >= longest)
        expected = TOKENIZER.encode([source[i]["captions"][0] for i in ids(batch)])[0]
        np.testing.assert_array_equal(batch["text"], expected[:, :length])
        assert ((batch["text"] == TOKENIZER.eos_token_id).sum(axis=1) == 1).all()
        seen.add(length)
    assert len(seen) > 1


@pytest.mark.parametrize("shards", [1, 4])
def test_packed_texts_take_the_least_share_of_rows_that_holds_them(shards):
    options = {"batch_size": 8, "num_negatives": 2, "text_rows": (0.1, 0.25, 0.5), "shards": shards}
    padded = batches(3, batch_size=8, num_negatives=2)
    for batch, whole in zip(batches(3, **options), padded, strict=True):
        texts = np.concatenate([batch["text"][:, None], batch["negatives"]], axis=1)
        assert texts.shape == (8, 3, 77)
        length = whole["text"].shape[1]
        np.testing.assert_array_equal(texts[:, 0, :length], whole["text"])
        n = 24 // shards
        shares = [np.ceil(share * n) for share in (0.1, 0.25, 0.5, 1)]
        needed = max((texts.reshape(shards, -1) != 0).sum(1)) / 77
        assert batch["text_slots"].shape[1] in [rows for rows in shares if rows >= needed][:2]
        length = (texts == TOKENIZER.eos_token_id).argmax(axis=-1).reshape(shards, -1)
        ends = np.take_along_axis(
            batch["text_slots"].reshape(shards, -1), batch["text_starts"] + length, axis=1
        )
        tokens = np.take_along_axis(texts.reshape(shards, -1), ends, axis=1)
        assert (tokens == TOKENIZER.eos_token_id).all()


def test_truncated_counts_captions_and_negatives():
    source = [
        record(
            i,
            captions=["x " * (5 if i % 3 else 40)],
            negatives=["x " * (5 if i % 2 else 40)],
        )
        for i in range(RECORDS)
    ]
    for slots in (0, 1):
        for batch in batches(STEPS, source, context_length=20, num_negatives=slots):
            cut = [not i % 3 or (slots > 0 and not i % 2) for i in ids(batch)]
            assert batch["truncated"].tolist() == cut
            assert batch["text"].shape[1] == 20  # 24 and more are beyond the context
            ends = batch["text"][:, -1] == TOKENIZER.eos_token_id
            assert ends.tolist() == [not i % 3 for i in ids(batch)]


def test_processes_agree_on_the_length():
    asked = []

    def agree(length):
        asked.append(length)
        return 48

    found = batches(2, agree=agree)
    assert asked == [16, 16]
    assert [batch["text"].shape[1] for batch in found] == [48, 48]


def test_negatives_demanded_and_absent_name_the_row():
    source = [*SOURCE[:7], record(7, negatives=[["a"], [], ["b"]]), *SOURCE[8:]]
    with pytest.raises(ValueError, match=r"made.json\[7\] has no negatives for 'picture 7 capt"):
        pipeline.train_batches(
            source, tokenizer=TOKENIZER, batch_size=8, seed=0, image_size=16, num_negatives=2
        )
    del source[7]["negatives"]
    with pytest.raises(ValueError, match=r"made.json\[7\] has no negatives [^\n]*$"):
        batches(1, source, num_negatives=2)
    assert batches(1, source)


def test_a_source_that_makes_its_records_up_is_not_asked_for_all_of_them():
    class Made(list):
        num_negatives, asked = 3, 0

        def __getitem__(self, i):
            Made.asked += 1
            return super().__getitem__(i)

    options = dict(tokenizer=TOKENIZER, batch_size=8, seed=0, image_size=16, num_negatives=2)
    pipeline.train_batches(Made(SOURCE), **options)
    assert Made.asked == 0
    assert_same(batches(1, Made(SOURCE), num_negatives=2), batches(1, num_negatives=2))


def test_batch_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="batch_size 24 is larger than the data: 23 records"):
        batches(1, batch_size=24)
    with pytest.raises(ValueError, match="batch_size 8 is not divisible by 3 processes"):
        batches(1, process_count=3)
    assert pipeline.steps_per_epoch(23, 8) == 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_bad_image_is_one_clear_line_from_any_process(tmp_path, workers):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    source = [*SOURCE[:4], record(4, image=str(path)), *SOURCE[5:]]
    with pytest.raises(ValueError) as caught:
        batches(2 * STEPS, source, workers=workers)
    message = str(caught.value)
    assert message.startswith(f"made.json[4]: cannot decode {path}: ") and "truncated" in message
    assert "\n" not in message


def test_flickr8k(shared):
    root = shared / "data/flickr8k"
    source = sources.load("captions", root, split="train", train_size=650)
    (batch,) = batches(1, source, image_size=64, crop_scale=(1, 1))
    by_text = {
        TOKENIZER.encode([caption])[0].tobytes(): r["image"]
        for r in (source[i] for i in range(len(source)))
        for caption in r["captions"]
    }
    for tokens, pixels in zip(batch["text"], batch["image"], strict=True):
        path = by_text[np.pad(tokens, (0, 77 - len(tokens))).tobytes()]
        with Image.open(path) as photograph:
            mean = np.asarray(photograph).mean((0, 1))
        assert np.abs(pixels.mean((0, 1)) - mean).max() < 12  # the crop's ratio loses a little


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_may_have_one_sample_of_a_batch(processes):
    source = [{"number": i} for i in range(10)]

    def batches(count, index):
        return pipeline.sampled_batches(
            source,
            lambda record, rng: {"number": np.int32(record["number"])},
            batch_size=processes,
            seed=0,
            process_index=index,
            process_count=count,
        )

    parts = [list(itertools.islice(batches(processes, i), 12)) for i in range(processes)]
    whole = list(itertools.islice(batches(1, 0), 12))
    for step, expected in enumerate(whole):
        found = np.concatenate([part[step]["number"] for part in parts])
        np.testing.assert_array_equal(found, expected["number"])


def test_pieces_make_the_same_batches_for_any_number_of_processes():
    """A shard's texts are packed by a worker, one piece of a batch at a time."""
    options = dict(num_negatives=2, text_rows=(0.1, 0.25, 0.5))
    whole = batches(5, shards=4, **options)
    assert_same(batches(4, shards=4, start_step=1, workers=2, **options), whole[1:])
    fields = [name for name in whole[0] if name not in ("text_slots", "text_starts")]
    for batch, alone in zip(whole, batches(5, shards=1, **options), strict=True):
        for name in fields:
            np.testing.assert_array_equal(batch[name], alone[name])
        # As packing.pack() places the shards of a whole batch.
        packed = pipeline.pack_texts(batch, options["text_rows"], shards=4)
        for name in ("text_slots", "text_starts"):
            np.testing.assert_array_equal(batch[name], packed[name])
    halves = [
        batches(5, shards=2, process_count=2, process_index=i, agree=lambda rows: 6, **options)
        for i in range(2)
    ]
    for batch, first, second in zip(whole, *halves, strict=True):
        for name in fields:
            both = np.concatenate([first[name], second[name]])
            np.testing.assert_array_equal(both, batch[name])


def test_a_batch_that_its_shards_do_not_divide():
    with pytest.raises(ValueError, match="8 is not divisible by 2 processes times 3 shards"):
        batches(1, process_count=2, shards=3)


RUN = """
import os, signal, sys, time
import numpy as np
from data import pipeline


def sample(record, rng):
    return {"image": np.full((200_000,), record, np.uint8)}


if __name__ == "__main__":
    made = pipeline.sampled_batches(range(64), sample, batch_size=16, seed=0, workers=2, pieces=4)
    iterator = pipeline.arranged(made, lambda batch: batch, pieces=4)
    for _ in range(3):
        assert next(iterator)["image"].shape == (16, 200_000)
    time.sleep(1)  # the workers have filled their queues
    if sys.argv[1] == "closed":
        iterator.close()
    elif sys.argv[1] == "failed":
        raise SystemExit("failed")
    elif sys.argv[1] == "at once":
        os._exit(0)
"""


@pytest.mark.parametrize("how", ["closed", "left open", "failed", "at once"])
def test_no_shared_memory_is_left_behind(how, tmp_path):
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("this system has no /dev/shm to look into")
    script = tmp_path / "run.py"
    script.write_text(RUN)
    before = set(folder.iterdir())
    done = subprocess.run(
        [sys.executable, script, how],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,  # until the workers have ended, too
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (how == "failed"), done.stderr
    deadline = time.monotonic() + 20  # the resource tracker ends after the process
    while (left := set(folder.iterdir()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, done.stderr
    assert how == "at once" or "leaked" not in done.stderr
