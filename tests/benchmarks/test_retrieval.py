import json

import numpy as np
import pytest

from benchmarks import retrieval
from benchmarks.scorers import ranks


def loop_ranks(queries, keys, query_ids, key_ids):
    """Plain loops over a ranked list, every wrong key of a tied score put before the right one."""
    ranks, ties = [], []
    for query, i in zip(queries, query_ids, strict=True):
        ranked = sorted(
            (-float(sum(a * b for a, b in zip(query, key, strict=True))), bool(i == j))
            for key, j in zip(keys, key_ids, strict=True)
        )
        first = next(n for n, (_, right) in enumerate(ranked) if right)
        ranks.append(sum(not right for _, right in ranked[:first]))
        ties.append(any(s == ranked[first][0] and not right for s, right in ranked))
    return ranks, ties


def test_ranks_match_plain_loops():
    rng = np.random.default_rng(0)
    # Small integers: products are exact, so that ties are many and the loops see the same ones.
    queries = rng.integers(-2, 3, (300, 3)).astype(np.float32)
    keys = rng.integers(-2, 3, (40, 3)).astype(np.float32)
    key_ids = np.arange(40) % 10
    query_ids = rng.integers(0, 10, 300)
    rank, tied, nearest, scores = ranks(queries, keys, query_ids, key_ids)
    expected_rank, expected_tied = loop_ranks(queries, keys, query_ids, key_ids)
    assert rank.tolist() == expected_rank
    assert tied.tolist() == expected_tied
    assert 0 < tied.sum() < 300
    table = queries @ keys.T
    np.testing.assert_array_equal(np.take_along_axis(table, nearest, axis=1), scores)
    assert (key_ids[nearest[:, 0]] == query_ids).all() and (
        key_ids[nearest[:, 1]] != query_ids
    ).all()
    np.testing.assert_array_equal(table.max(axis=1), scores.max(axis=1))


@pytest.mark.parametrize("number", [37, 257])
def test_a_caption_that_two_images_share_ties_exactly(number):
    # On real-valued vectors the two equal columns of a matrix product can differ in the last bit.
    rng = np.random.default_rng(number)
    keys = rng.normal(size=(number, 512)).astype(np.float32)
    keys[-1] = keys[0]
    queries = keys[:1] + 0.01 * rng.normal(size=(200, 512)).astype(np.float32)
    rank, tied, *_ = ranks(queries, keys, np.zeros(200, int), np.arange(number))
    assert tied.all() and (rank == 1).all()


def test_a_query_without_numbers_has_no_rank():
    queries = np.array([[1, 0], [np.nan, 0]], np.float32)
    rank, tied, *_ = ranks(queries, np.eye(2, dtype=np.float32), np.arange(2), np.arange(2))
    assert rank[0] == 0 and np.isnan(rank[1]) and not tied.any()


class Fake:
    """An axis for each image; a text sums the axes that its digits name, the first weighs most."""

    def images(self, paths):
        return np.stack([np.eye(4, dtype=np.float32)[int(path[-5])] for path in paths])

    def texts(self, texts):
        rows = [sum(np.eye(4)[int(d)] * 0.9**i for i, d in enumerate(text)) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    rows = [("0.jpg", ["0", "02"]), ("1.jpg", ["01"]), ("2.jpg", ["2", "31"]), ("3.jpg", ["3"])]
    for name, _ in rows:
        (tmp_path / "images" / name).touch()
    content = [{"image": name, "captions": captions} for name, captions in rows]
    (tmp_path / "captions.json").write_text(json.dumps(content))
    return tmp_path


def test_recall_by_hand(folder):
    scores = retrieval.run(Fake(), str(folder))
    value = {score.name: score.value for score in scores.scores}
    # The one caption of image 1, "01", ties with "31", a caption of image 2.
    assert value["image_to_text_recall@1"] == pytest.approx(100 * 3 / 4)
    assert scores["image_to_text_recall@1"].ties == 1
    # "01" is nearest to image 0, its own is second. "31" is nearest to 3, then 1; its own is as
    # far as image 0: a tie.
    assert value["text_to_image_recall@1"] == pytest.approx(100 * 4 / 6)
    assert value["text_to_image_recall@5"] == value["image_to_text_recall@5"] == 100
    assert scores["text_to_image_recall@1"].ties == 1
    assert [scores[f"{way}_recall@10"].count for way in ("image_to_text", "text_to_image")] == [
        4,
        6,
    ]


def test_rows_that_share_an_image_are_one_image(folder):
    content = json.loads((folder / "captions.json").read_text())
    split = [
        {"image": row["image"], "captions": [caption]}
        for row in content
        for caption in row["captions"]
    ]
    together = retrieval.run(Fake(), str(folder))
    (folder / "captions.json").write_text(json.dumps(split))
    assert retrieval.run(Fake(), str(folder)).scores == together.scores


def test_split_is_that_of_the_sources(folder):
    test = retrieval.run(Fake(), str(folder), split="test", test_size=1)
    train = retrieval.run(Fake(), str(folder), split="train", test_size=1)
    assert test["image_to_text_recall@1"].count == 1
    assert train["image_to_text_recall@1"].count == 3


def test_what_the_source_refuses_is_passed_on(folder):
    with pytest.raises(FileNotFoundError, match="gone.json"):
        retrieval.run(Fake(), str(folder), annotations="gone.json")
