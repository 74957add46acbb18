"""What a run trains on: origins and types drawn by their weights."""

import pickle
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict

from captions import mixture, written
from captions.mixture import ANY, FromFolder, FromRecords, Mixture

RECORD = {
    "image": "folder/1.jpg",
    "captions": ["a dog and a cat", "two pets"],
    "negatives": [["r0 a", "r0 b", "r0 c"], ["r1 a"]],
    "key": "made[0]",
}


class Planted:
    """Says its own name, the type and a number."""

    def __init__(self, name, types, count=100):
        self.name, self.types, self.count = name, types, count

    def candidates(self, record, i, rng):
        return {t: [f"{self.name} {t} {k}" for k in range(self.count)] for t in self.types}


def draw(negatives, times=1, record=RECORD, i=0):
    rng = np.random.default_rng(0)
    return [negatives(record, i, rng) for _ in range(times)]


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1, 0), (0.2, 0.5, 0.3)])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_shares_are_exact_in_the_mean_and_off_by_less_than_one_in_each_draw(weights, count):
    rng = np.random.default_rng(0)
    expected = count * np.array(weights) / sum(weights)
    draws = [np.bincount(mixture.shares(weights, count, rng), minlength=3) for _ in range(4000)]
    assert all(draw.sum() == count for draw in draws)
    assert np.abs(np.array(draws) - expected).max() < 1
    np.testing.assert_allclose(np.mean(draws, axis=0), expected, atol=0.04)


def test_every_pair_of_types_can_be_drawn_together():
    rng = np.random.default_rng(0)
    drawn = {tuple(mixture.shares([1] * 5, 2, rng)) for _ in range(500)}
    assert len(drawn) == 10


def test_origins_and_types_come_as_often_as_they_weigh():
    types = {"x": 3.0, "y": 1.0}
    origins = ((Planted("a", types), 1.0), (Planted("b", types), 3.0))
    negatives = Mixture(origins, types, num_negatives=4)
    counts = Counter()
    for texts, valid, filled in draw(negatives, 2000):
        assert all(valid) and filled == 0
        counts.update(tuple(text.split()[:2]) for text in texts)
    total = counts.total()
    for (name, kind), share in {
        ("a", "x"): 3 / 16, ("a", "y"): 1 / 16, ("b", "x"): 9 / 16, ("b", "y"): 3 / 16,
    }.items():  # fmt: skip
        assert counts[name, kind] / total == pytest.approx(share, abs=0.02)


def test_weight_zero_is_never_drawn_not_even_to_fill():
    origins = ((Planted("a", ["x"], count=1), 1.0), (Planted("b", ["x", "y"]), 0.0))
    for fill in (True, False):
        negatives = Mixture(origins, {"x": 1.0, "y": 0.0}, num_negatives=3, fill=fill)
        ((texts, valid, filled),) = draw(negatives)
        assert texts == ["a x 0", "", ""] and valid == [True, False, False] and filled == 0


def test_what_one_origin_lacks_another_fills_and_it_is_counted():
    origins = ((Planted("a", ["x"], count=1), 1.0), (Planted("b", ["y"], count=2), 1.0))
    negatives = Mixture(origins, {"x": 1.0, "y": 1.0}, num_negatives=4)
    ((texts, valid, filled),) = draw(negatives)
    assert sorted(text for text in texts if text) == ["a x 0", "b y 0", "b y 1"]
    assert sum(valid) == 3 and filled <= 3


def test_records_are_those_of_the_caption_and_of_any_type():
    negatives = Mixture(((FromRecords(), 1.0),), {"x": 1.0, "y": 1.0}, num_negatives=2)
    seen = set()
    for texts, valid, filled in draw(negatives, 50):
        assert all(valid) and filled == 0
        seen |= set(texts)
    assert seen == {"r0 a", "r0 b", "r0 c"}
    assert draw(negatives, i=1) == [(["r1 a", ""], [True, False], 0)]


@pytest.fixture
def folder(tmp_path):
    """Two shards of three rows, as captions.generate writes them."""
    rows = [row(f"{i}.jpg", f"caption {i}", i) for i in range(3)]
    rows[1] = row("1.jpg", "a dog and a cat", 2)
    keys = [written.key(r["image"], r["caption"]) for r in rows]
    written.save_shard(tmp_path, 0, 2, rows[:2])
    written.save_shard(tmp_path, 1, 2, rows[2:])
    written.seal(tmp_path, [2, 1], keys, "for a test")
    return tmp_path


def row(image, caption, count):
    negatives = [
        {"text": f"{caption} {kind} {k} é", "type": kind, "writer": "language", "model": "m",
         "prompt_version": "abc", "seed": 2**40, "attempts": 1}
        for kind in ("swap_nouns", "replace_noun") for k in range(count)
    ]  # fmt: skip
    return {"image": image, "caption": caption, "negatives": negatives}


def test_a_written_folder_reads_back_also_after_pickling(folder):
    rows = pickle.loads(pickle.dumps(written.Written(folder)))
    assert len(rows) == 3 and [r["image"] for r in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert rows.find("1.jpg", "a dog and a cat") == row("1.jpg", "a dog and a cat", 2)
    assert rows.find("1.jpg", "another caption") is None
    assert rows.find("2.jpg", "a dog and a cat") is None


def test_a_written_folder_is_a_data_set_of_tfds(folder):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(folder).as_data_source(split="train")
    assert [len(r["negatives"]["text"]) for r in source] == [0, 4, 4]
    assert source[2]["caption"] == b"caption 2"


def test_a_written_folder_serves_its_types(folder):
    origin = FromFolder(written.Written(folder))
    negatives = Mixture(((origin, 1.0),), {"swap_nouns": 1.0, "reshuffle": 1.0}, 2, fill=False)
    for texts, valid, _ in draw(negatives, 10):
        assert texts[0].startswith("a dog and a cat swap_nouns") and valid == [True, False]
    assert draw(negatives, i=1) == [(["", ""], [False, False], 0)]  # not written for
    assert ANY not in origin.candidates(RECORD, 0, np.random.default_rng(0))


class Source:
    def __init__(self, *records):
        self._records = records

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]


def config(**changes):
    data = dict(
        negatives="rules", negative_types=("swap_nouns",), num_negatives=2, fill_negatives=False
    )
    return ConfigDict(data | changes)


def test_the_config_names_origins_and_types_with_their_weights(folder):
    data = config(
        negatives=f"records=0.5, rules=2, {folder}", negative_types=("swap_nouns=3", "reshuffle")
    )
    negatives = pickle.loads(pickle.dumps(mixture.open_negatives(data, Source(RECORD))))
    assert [weight for _, weight in negatives.origins] == [0.5, 2.0, 1.0]
    assert negatives.type_weights == {"swap_nouns": 3.0, "reshuffle": 1.0}
    texts, valid, _ = negatives(RECORD, 0, np.random.default_rng(0))
    assert len(texts) == len(valid) == 2


def test_records_alone_need_nothing_drawn():
    assert mixture.open_negatives(config(negatives="records"), Source(RECORD)) is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"negatives": "rule"}, "names 'rule'; give records or rules, or a folder"),
        ({"negatives": "rules=much"}, "'rules=much': give name or name=weight"),
        ({"negatives": "rules=-1"}, "at least 0"),
        ({"negative_types": ("swap_verbs",)}, "'swap_verbs'.*reshuffle"),
        ({"negative_types": ("describe_class",)}, "no rule for the types describe_class"),
        ({"negative_types": ("reshuffle=0",)}, "one above it"),
        ({"negative_types": ()}, "one above it"),
    ],
)
def test_what_cannot_be_is_one_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        mixture.open_negatives(config(**changes), Source(RECORD))


def test_a_folder_of_other_data_or_of_a_run_under_way_is_refused(folder, tmp_path):
    other = RECORD | {"image": "folder/unknown.jpg"}
    with pytest.raises(ValueError, match="no negatives for any caption"):
        mixture.open_negatives(config(negatives=str(folder)), Source(other))
    (folder / written.INDEX).unlink()
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="not come to an end"):
        mixture.open_negatives(config(negatives=str(folder)), Source(RECORD))
