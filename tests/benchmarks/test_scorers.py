"""The four scorers on similarities made by hand, ties and missing numbers among them."""

import numpy as np
import pytest

from benchmarks.base import Item
from benchmarks.scorers import choice, retrieval, similarities, square, two_positives
from tests.benchmarks.toy import Table, angle

T = [("a", 0), ("b", 10), ("c", 20), ("d", 90), ("e", 90)]
VECTORS = {name: angle(degrees) for name, degrees in T} | {"i": angle(0), "j": angle(90)}


def item(key, images, texts, **more):
    return Item(more.pop("subset", ""), key, images, texts, **more)


def test_choice_of_a_text():
    items = [
        item("first", ["i"], ("a", "b", "d")),
        item("second", ["i"], ("b", "a")),
        item("tie", ["j"], ("d", "e", "a")),
        item("tie before", ["j"], ("d", "e", "a"), right=1),
        item("last", ["i"], ("d", "b", "a"), right=2),
    ]
    found = choice(Table(VECTORS), items)["accuracy"]
    assert found.right.tolist() == [True, False, False, False, True]
    assert found.tied.tolist() == [False, False, True, True, False]
    assert found.argmax.tolist() == [True, False, True, False, True]
    assert found.chance.mean() == pytest.approx(np.mean([1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 3]))
    # The right text first, then the strongest wrong ones.
    assert found.texts[0] == ["a", "b", "d"] and found.texts[4] == ["a", "b", "d"]
    np.testing.assert_allclose(found.scores[0], np.cos(np.radians([0, 10, 90])), atol=1e-6)


def test_choice_of_an_image():
    items = [item("1", ["i", "j"], ("a",)), item("2", ["i", "j"], ("b",), right=1)]
    assert choice(Table(VECTORS), items)["accuracy"].right.tolist() == [True, False]


def test_choice_among_classes_is_that_of_each_image_alone():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(130, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"c{i}" for i in range(50)]
    vectors = dict(zip([*names, *(f"x{i}" for i in range(80))], rows, strict=True))
    classes = tuple(names)
    shared = [item(str(i), [f"x{i}"], classes, right=i % 50) for i in range(80)]
    alone = [item(str(i), [f"x{i}"], tuple(names), right=i % 50) for i in range(80)]
    together, apart = (choice(Table(vectors), items)["accuracy"] for items in (shared, alone))
    assert together.right.tolist() == apart.right.tolist()
    expected = [np.argmax(rows[:50] @ rows[50 + i]) == i % 50 for i in range(80)]
    assert together.right.tolist() == expected


def test_all_of_a_set_must_be_right():
    def asked(key, image, right, group):
        return item(key, [image], ("a", "d"), right=right, parts={"set": group})

    items = [asked("1", "i", 0, "x"), asked("2", "j", 1, "x"), asked("3", "i", 0, "y"),
             asked("4", "i", 1, "y"), asked("5", "i", 0, "z")]  # fmt: skip
    found = choice(Table(VECTORS), items)
    assert found["accuracy"].right.tolist() == [True, True, True, False, True]
    assert found["set"].right.tolist() == found["set"].argmax.tolist() == [True, False, True]
    assert found["set"].chance.mean() == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)


def test_two_positives_by_hand():
    items = [
        item("both", ["i"], ("a", "b", "c")),  # tot: a, b are 10 apart; b, c too: a tie
        item("one", ["i"], ("a", "c", "b")),
        item("text only", ["j"], ("a", "b", "d")),
        item("tie", ["j"], ("d", "e", "e")),
    ]
    found = two_positives(Table(VECTORS), items)
    assert found["itt"].right.tolist() == [True, False, False, False]
    assert found["itt"].tied.tolist() == [False, False, False, True]
    assert found["tot"].right.tolist() == [False, False, True, False]
    assert found["tot"].tied[3]


@pytest.mark.parametrize("seed", range(5))
def test_square_is_winogrounds_definition(seed):
    rng = np.random.default_rng(seed)
    # Few distinct values: ties are many, and exact.
    table = rng.choice(VALUES, (40, 4))
    items, vectors = [], {"i": [1, 0, 0], "j": [0, 1, 0]}
    for k, (ic, id_, jc, jd) in enumerate(table):
        for name, (x, y) in ((f"c{k}", (ic, jc)), (f"d{k}", (id_, jd))):
            vectors[name] = [x, y, np.sqrt(1 - x * x - y * y)]
        items.append(item(str(k), ["i", "j"], (f"c{k}", f"d{k}"), subset="s" if k % 2 else "t"))
    found = square(Table(vectors), items)
    for subset, rows in (("t", table[::2]), ("s", table[1::2])):
        text = [ic > id_ and jd > jc for ic, id_, jc, jd in rows]
        image = [ic > jc and jd > id_ for ic, id_, jc, jd in rows]
        assert found[f"{subset}_text"].right.tolist() == text
        assert found[f"{subset}_image"].right.tolist() == image
        group = [t and i for t, i in zip(text, image, strict=True)]
        assert found[f"{subset}_group"].right.tolist() == group
        assert found[f"{subset}_group"].tied.any()


VALUES = np.array([0.1, 0.2, 0.3, 0.4])


def test_a_number_that_is_missing_decides_nothing():
    vectors = {**VECTORS, "nan": [np.nan, 0.0]}
    items = [item("1", ["i"], ("a", "nan")), item("2", ["i"], ("nan", "d")), item("3", ["i"], "ad")]
    found = choice(Table(vectors), items)["accuracy"]
    assert found.reading("strict").tolist() == found.reading("argmax").tolist()
    assert found.reading("strict").tolist() == [False, False, True]
    assert found.undecided.tolist() == [True, True, False]
    both = two_positives(Table(vectors), [item("1", ["i"], ("a", "nan", "d"))])
    assert not both["itt"].reading("strict").any() and not both["tot"].reading("strict").any()
    four = square(Table(vectors), [item("1", ["i", "j"], ("a", "nan"))])
    assert not any(four[metric].reading("strict").any() for metric in four)
    many = retrieval(Table(vectors), [item("1", ["i"], ("a", "nan")), item("2", ["j"], ("d",))])
    assert not many["image_to_text_recall@10"].reading("strict").any()
    # A missing part leaves the set undecided.
    parts = [item("1", ["i"], ("a", "d"), parts={"set": "x"}),
             item("2", ["i"], ("a", "nan"), parts={"set": "x"})]  # fmt: skip
    assert not choice(Table(vectors), parts)["set"].reading("strict").any()


def test_equal_texts_tie_exactly_in_large_tables():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(300, 512)).astype(np.float32)
    keys[-1] = keys[0]
    scores = similarities(rng.normal(size=(200, 512)).astype(np.float32), keys)
    assert np.array_equal(scores[:, 0], scores[:, -1])


def test_chance_of_a_hit():
    # Two images with one and three captions: of four, one draw, then two.
    items = [item("1", ["i"], ("a",)), item("2", ["j"], ("b", "c", "d"))]
    found = retrieval(Table(VECTORS), items, at=(1, 2))
    assert found["image_to_text_recall@1"].chance.mean() == pytest.approx((1 / 4 + 3 / 4) / 2)
    one = 1 - (3 * 2) / (4 * 3)
    three = 1 - 0
    assert found["image_to_text_recall@2"].chance.mean() == pytest.approx((one + three) / 2)
    assert found["text_to_image_recall@1"].chance.mean() == pytest.approx(1 / 2)
