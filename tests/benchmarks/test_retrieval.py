import json

import numpy as np
import pytest

from benchmarks import retrieval, scorers
from benchmarks.items import Item
from tests.benchmarks.toy import Table


def by_loops(queries, keys, is_right, k):
    """(right, tied) of each query: plain loops over a list of wrong keys, the strongest first."""
    right, tied = [], []
    for i, query in enumerate(queries):
        scores = [float(sum(a * b for a, b in zip(query, key, strict=True))) for key in keys]
        own = max(s for j, s in enumerate(scores) if is_right(i, j))
        wrong = sorted((s for j, s in enumerate(scores) if not is_right(i, j)), reverse=True)
        right.append(own > wrong[k - 1])
        tied.append(own == wrong[k - 1])
    return right, tied


def items_of(number, captions):
    return [Item("", str(i), [f"i{i}"], tuple(f"t{i} {k}" for k in range(captions)))
            for i in range(number)]  # fmt: skip


def test_recall_is_that_of_plain_loops():
    rng = np.random.default_rng(0)
    # Small integers: products are exact, so that ties are many and the loops see the same ones.
    items = items_of(60, 3)
    names = [item.images[0] for item in items] + [text for item in items for text in item.texts]
    vectors = {name: rng.integers(-2, 3, 3) for name in names}
    found = scorers.retrieval(Table(vectors), items)
    images = [vectors[item.images[0]] for item in items]
    texts = [vectors[text] for item in items for text in item.texts]
    for k in (1, 5, 10):
        for way, expected in (
            ("image_to_text", by_loops(images, texts, lambda i, j: j // 3 == i, k)),
            ("text_to_image", by_loops(texts, images, lambda i, j: i // 3 == j, k)),
        ):
            outcomes = found[f"{way}_recall@{k}"]
            assert (outcomes.right.tolist(), outcomes.tied.tolist()) == expected
            assert 0 < outcomes.tied.sum() < len(outcomes.tied)
    # What is shown: the question's own image and text, the right score before the wrong ones.
    shown = found["text_to_image_recall@1"]
    assert [item.key for item in shown.items[:4]] == ["0", "0", "0", "1"]
    assert shown.texts[4] == ("t1 1",) and shown.scores[4][0] == vectors["t1 1"] @ vectors["i1"]
    assert all(list(row[1:]) == sorted(row[1:], reverse=True) for row in shown.scores)


@pytest.mark.parametrize("number", [37, 257])
def test_a_caption_that_two_images_share_ties_exactly(number):
    # On real-valued vectors the two equal columns of a matrix product can differ in the last bit.
    rng = np.random.default_rng(number)
    keys = rng.normal(size=(number, 512))
    keys[-1] = keys[0]
    items = items_of(number, 1)
    vectors = {item.texts[0]: key for item, key in zip(items, keys, strict=True)}
    vectors |= {item.images[0]: keys[0] + 0.01 * rng.normal(size=512) for item in items}
    found = scorers.retrieval(Table(vectors), items)["image_to_text_recall@1"]
    assert found.tied[[0, -1]].all() and not found.right[[0, -1]].any()


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
    # "01" is nearest to image 0, its own is second. "31" is nearest to 3; that its own is as far as
    # image 0 decides nothing.
    assert value["text_to_image_recall@1"] == pytest.approx(100 * 4 / 6)
    assert value["text_to_image_recall@5"] == value["image_to_text_recall@5"] == 100
    assert scores["text_to_image_recall@1"].ties == 0
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
