import json

import numpy as np
import pytest

from benchmarks import sugarcrepe
from data.rows import rows
from intervals import resolve
from tests.benchmarks.toy import Table, angle

PUBLISHED_COUNTS = {
    "add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652,
    "replace_rel": 1406, "swap_att": 666, "swap_obj": 245,
}  # fmt: skip
DEGLA = {
    "replace_obj": 94.5, "replace_att": 92.6, "replace_rel": 84.2,
    "swap_obj": 81.6, "swap_att": 82.1, "add_obj": 93.8, "add_att": 95.7,
}  # fmt: skip


KEYS = ("filename", "caption", "negative_caption")


class ByHash:
    """Deterministic unit vectors for whatever it is given."""

    def _rows(self, names):
        seeds = [int.from_bytes(str(name).encode()[-12:], "little") for name in names]
        rows = np.array([np.random.default_rng(s).normal(size=8) for s in seeds], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def images(self, paths):
        return self._rows([str(path).rsplit("/", 1)[-1] for path in paths])

    texts = _rows


def write(root, subsets):
    for name in sugarcrepe.SUBSETS:
        rows = [dict(zip(KEYS, row, strict=True)) for row in subsets.get(name, [])]
        content = {str(i): row for i, row in enumerate(rows)}
        (root / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def toy(tmp_path):
    images = tmp_path / "val2017"
    images.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (images / name).touch()
    write(
        tmp_path,
        {
            name: [("gone.jpg", "near", "far")]
            for name in sugarcrepe.SUBSETS
            if not name.startswith("swap")
        }
        | {
            "swap_obj": [
                ("a.jpg", "near", "far"),
                ("b.jpg", "near", "far"),
                ("a.jpg", "far", "far"),
            ],
            "swap_att": [("a.jpg", "far", "near"), ("gone.jpg", "near", "far")],
        },
    )
    vectors = {"a.jpg": angle(0), "b.jpg": angle(90), "near": angle(10), "far": angle(70)}
    encoder = Table(vectors)
    return encoder, tmp_path, images


def test_ties_are_wrong_and_counted(toy):
    encoder, root, images = toy
    scores = sugarcrepe.run(encoder, str(root), str(images), partial_images=True)
    # a.jpg: cos 10 > cos 70; b.jpg: cos 80 < cos 20; the third pair ties.
    assert scores["swap_obj"].value == pytest.approx(100 / 3)
    assert (scores["swap_obj"].count, scores["swap_obj"].ties) == (3, 1)
    assert (scores["swap_att"].value, scores["swap_att"].count) == (0, 1)
    assert scores["swap_macro"].value == pytest.approx(100 / 6)


def test_aggregates_without_examples_are_left_out(toy):
    encoder, root, images = toy
    scores = sugarcrepe.run(encoder, str(root), str(images), partial_images=True)
    assert [s.name for s in scores.scores] == ["swap_obj", "swap_att", "swap_macro"]
    assert scores.left_out["swap_att"] == 1 and sum(scores.left_out.values()) == 6


def test_missing_images_stop_the_run(toy):
    encoder, root, images = toy
    with pytest.raises(FileNotFoundError) as error:
        sugarcrepe.run(encoder, str(root), str(images))
    message = str(error.value)
    assert "1 of 3 images are missing" in message and "(6 of 10 examples)" in message
    assert str(images) in message and "--eval.sugarcrepe.partial_images" in message


def test_no_image_at_all_stops_even_a_partial_run(toy, tmp_path):
    encoder, root, _ = toy
    with pytest.raises(
        FileNotFoundError, match="3 of 3 images are missing, such as .*nowhere/a.jpg"
    ):
        sugarcrepe.run(encoder, str(root), str(tmp_path / "nowhere"), partial_images=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "add_obj.json: no such"),
        ("{", "add_obj.json is not valid JSON"),
        ("[]", "add_obj.json: no rows"),
        ("3", "add_obj.json: expected a list or an object"),
        ('{"7": {"filename": "a.jpg", "caption": "near"}}', "row '7': no 'negative_caption'"),
        ('{"7": {"filename": "a.jpg", "caption": 3, "negative_caption": "x"}}', "row '7': 'cap"),
        ('{"7": {"filename": "a.jpg", "caption": "x", "negative_caption": " "}}', "row '7': 'neg"),
        ('{"7": {"filename": "", "caption": "x", "negative_caption": "y"}}', "row '7': 'filename"),
        ('{"7": ["a.jpg", "near", "far"]}', "row '7': no 'filename'"),
        (
            '[{"id": 3, "filename": "a.jpg", "caption": "x", "negative_caption": "y"},'
            ' {"id": 3, "filename": "a.jpg", "caption": "z", "negative_caption": "y"}]',
            "row 1: the id '3' is that of .*row 0 too",
        ),
    ],
)
def test_broken_annotations_are_named(toy, content, message):
    encoder, root, images = toy
    path = root / "add_obj.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sugarcrepe.run(encoder, str(root), str(images), partial_images=True)


def test_aggregates_of_the_published_table():
    value = {}
    for name, aggregate in sugarcrepe.AGGREGATES.items():
        subsets, function, _ = resolve(aggregate, PUBLISHED_COUNTS)
        value[name] = function(*(DEGLA[subset] for subset in subsets))
    # DeGLA, table 1; both sides are rounded to one decimal.
    assert value["replace_macro"] == pytest.approx(90.5, abs=0.1)
    assert value["swap_macro"] == pytest.approx(81.9, abs=0.1)
    assert value["add_macro"] == pytest.approx(94.8, abs=0.1)
    # By hand from the published counts.
    assert value["macro"] == pytest.approx(sum(DEGLA.values()) / 7)
    right = {name: DEGLA[name] * n for name, n in PUBLISHED_COUNTS.items()}
    assert value["micro"] == pytest.approx(sum(right.values()) / 7511)
    replace = (94.5 * 1652 + 92.6 * 788 + 84.2 * 1406) / 3846
    swap = (81.6 * 245 + 82.1 * 666) / 911
    add = (93.8 * 2062 + 95.7 * 692) / 2754
    assert value["category_mean"] == pytest.approx((replace + swap + add) / 3)


def test_real_annotations_have_the_published_counts(shared):
    root = shared / "data/sugarcrepe"
    counts = {name: len(rows(root / f"{name}.json")) for name in PUBLISHED_COUNTS}
    assert counts == PUBLISHED_COUNTS and sum(counts.values()) == 7511


def test_the_pairs_whose_images_are_there(shared):
    root, images = shared / "data/sugarcrepe", shared / "data/coco_val2017"
    with pytest.raises(FileNotFoundError, match=r"of 7511 examples\).*partial_images"):
        sugarcrepe.run(ByHash(), str(root), str(images))
    scores = sugarcrepe.run(ByHash(), str(root), str(images), partial_images=True)
    there = {path.name for path in images.iterdir()}
    encoder, expected, number = ByHash(), {}, 0
    for name in PUBLISHED_COUNTS:
        outcomes = []
        for row in json.loads((root / f"{name}.json").read_text()).values():
            if row["filename"] in there:
                image = encoder.images([images / row["filename"]])[0]
                true, false = encoder.texts([row["caption"], row["negative_caption"]])
                outcomes.append(float(image @ true) > float(image @ false))
        number += len(outcomes)
        if outcomes:
            expected[name] = 100 * sum(outcomes) / len(outcomes)
    assert number == 31
    assert {name: scores[name].value for name in expected} == pytest.approx(expected)
    assert sum(scores.left_out.values()) == 7511 - 31
