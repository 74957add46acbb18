import json
import pickle
import random
import resource
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from transformers import CLIPTokenizer

from data import tokenizer as tokenizers

GOLDEN = Path(__file__).parents[1] / "golden/tokenizer.json"


@pytest.fixture(scope="module")
def openai(shared):
    return tokenizers.from_merges(shared / "data/clip/bpe_simple_vocab_16e6.txt.gz")


@pytest.fixture(scope="module")
def flickr_captions(shared):
    rows = json.loads((shared / "data/flickr8k/captions.json").read_text())
    return [caption for row in rows for caption in row["captions"]]


def test_ids_equal_openai_on_hard_strings(openai):
    cases = json.loads(GOLDEN.read_text())
    ids, truncated = openai.encode([case["text"] for case in cases])
    assert ids.dtype == np.int32 and ids.shape == (len(cases), 77)
    for case, row in zip(cases, ids, strict=True):
        expected = case["ids"] + [0] * (77 - len(case["ids"]))
        assert row.tolist() == expected, case["text"]
    assert truncated.sum() == sum(
        len(openai.encode([case["text"]], 10_000)[0][0].nonzero()[0]) > 77 for case in cases
    )


def test_sizes_are_clip_s(openai):
    assert (openai.vocab_size, openai.eos_token_id) == (49408, 49407)


def test_a_cut_text_keeps_its_end_token(openai):
    ids, truncated = openai.encode(["one two three", "one two three four"], 5)
    assert truncated.tolist() == [False, True]
    assert ids[0].tolist()[:4] == ids[1].tolist()[:4]
    assert ids[:, -1].tolist() == [49407, 49407]


def test_ordinary_captions_equal_transformers(openai, flickr_captions, tmp_path):
    """An independent implementation on ids and on the saved folder's format."""
    openai.save(tmp_path)
    reference = CLIPTokenizer.from_pretrained(str(tmp_path))
    captions = flickr_captions[::4]
    ids, truncated = openai.encode(captions)
    assert not truncated.any()
    for row, expected in zip(ids, reference(captions)["input_ids"], strict=True):
        assert row[: len(expected)].tolist() == expected
        assert not row[len(expected) :].any()


def test_save_and_load_change_nothing(openai, tmp_path):
    openai.save(tmp_path)
    loaded = tokenizers.load_tokenizer(tmp_path)
    assert loaded.fingerprint() == openai.fingerprint()
    texts = [case["text"] for case in json.loads(GOLDEN.read_text())]
    np.testing.assert_array_equal(loaded.encode(texts)[0], openai.encode(texts)[0])


def test_a_disk_that_is_full_is_one_line(tmp_path):
    small = tokenizers.train_tokenizer(["a dog"], 520)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # what a quota does
    try:
        with pytest.raises(OSError, match=r"cannot write .*tokenizer: File too large[^\n]*$"):
            small.save(tmp_path / "tokenizer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "tokenizer").exists()
    small.save(tmp_path / "tokenizer")
    assert tokenizers.load_tokenizer(tmp_path / "tokenizer").fingerprint() == small.fingerprint()


def test_reads_the_older_layout_of_two_files(openai, tmp_path):
    openai.save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    assert tokenizers.load_tokenizer(tmp_path).fingerprint() == openai.fingerprint()


def test_travels_to_worker_processes(openai):
    copy = pickle.loads(pickle.dumps(openai))
    np.testing.assert_array_equal(copy.encode(["a dog"])[0], openai.encode(["a dog"])[0])


class TestTrained:
    def test_is_deterministic_and_ignores_the_order_of_captions(self, flickr_captions):
        shuffled = random.Random(0).sample(flickr_captions, len(flickr_captions))
        trained = [tokenizers.train_tokenizer(c, 900) for c in (flickr_captions, shuffled)]
        assert trained[0].fingerprint() == trained[1].fingerprint()
        assert trained[0].vocab_size == 900
        assert trained[0].eos_token_id == 899

    def test_equals_a_plain_trainer(self):
        """Byte-pair encoding written out: join the most frequent pair, again and again."""
        captions = ["low lower lowest", "new newer newest newest", "wide wider widest low low"]
        tokenizer = tokenizers.train_tokenizer(captions, 514 + 8)
        words = [(*word[:-1], word[-1] + "</w>") for c in captions for word in c.split()]
        for merge in tokenizer._merges:
            pairs = [pair for word in words for pair in zip(word, word[1:], strict=False)]
            assert pairs.count(merge) == max(map(pairs.count, pairs))
            words = [join(word, merge) for word in words]
        ids = tokenizer.encode(["low newest"], 20)[0][0]
        expected = [
            tokenizer._vocab[t] for w in ("low", "newest") for t in split(w, captions, words)
        ]
        assert ids[1 : 1 + len(expected)].tolist() == expected

    def test_is_a_transformers_tokenizer(self, flickr_captions, tmp_path):
        trained = tokenizers.train_tokenizer(flickr_captions, 1000)
        trained.save(tmp_path)
        reference = CLIPTokenizer.from_pretrained(str(tmp_path))
        assert len(reference) == trained.vocab_size
        for text in flickr_captions[:50]:
            expected = reference(text)["input_ids"]
            assert trained.encode([text])[0][0, : len(expected)].tolist() == expected
        assert tokenizers.load_tokenizer(tmp_path).fingerprint() == trained.fingerprint()

    def test_encodes_what_it_never_saw(self):
        trained = tokenizers.train_tokenizer(["a dog"], 600)
        assert trained.vocab_size < 600
        ids, truncated = trained.encode(["Ünseen 🐕"])
        assert not truncated.any()
        assert (ids[0] == trained.eos_token_id).sum() == 1

    def test_needs_room_for_the_bytes(self):
        with pytest.raises(ValueError, match="at least 514 tokens"):
            tokenizers.train_tokenizer(["a dog"], 512)


def join(word, merge):
    joined = []
    for symbol in word:
        if joined and (joined[-1], symbol) == merge:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


def split(word, captions, split_words):
    return split_words[[w for c in captions for w in c.split()].index(word)]


def test_fingerprint_tells_tokenizers_apart(openai):
    assert tokenizers.train_tokenizer(["a dog"], 520).fingerprint() != openai.fingerprint()


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def unreachable(name, allow_patterns):
        raise OSError("long\nstory")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="'openai/x' is neither a folder .* give a local folder"):
        tokenizers.load_tokenizer("openai/x")


def test_a_folder_without_a_clip_tokenizer_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer.json"):
        tokenizers.load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="is no CLIP tokenizer: its vocabulary lacks 511"):
        tokenizers.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read the tokenizer in [^\n]*$"):
        tokenizers.load_tokenizer(tmp_path)


def test_missing_merges_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot read BPE merges from"):
        tokenizers.from_merges(tmp_path / "bpe.txt.gz")
