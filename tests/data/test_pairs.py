"""Pairs of images: what stands where, what is said of both, and batches in turn."""

import numpy as np
import pytest

from captions.mixture import of_rules
from data import pairs, sources
from data.tokenizer import train_tokenizer

NOUNS = ("dog", "cat", "bird", "cow", "horse", "duck")
TEXTS = ("texts:joined", "valid:joined")


class Singles:
    """Plain images, portraits and landscapes in turn, with as many captions as there are images."""

    def __init__(self, captions=3):
        self._captions = captions

    def __len__(self):
        return len(NOUNS)

    def __getitem__(self, i):
        shape = (8, 4, 3) if i % 2 else (4, 8, 3)
        told = [f"A {NOUNS[i]} number {k}" for k in range(self._captions)]
        return {"image": np.full(shape, 10 * i, np.uint8), "captions": told, "key": f"row {i}"}


def nouns(text):
    return [word for word in text.replace(".", "").split() if word in NOUNS]


@pytest.mark.parametrize("i", range(6))
def test_a_pair_is_of_one_orientation_in_the_order_of_its_caption(i):
    record = pairs.Pairs(Singles(), side=8)[i]
    image = record["image"]
    assert image.shape == (8, 8, 3)
    first, second = (image[:, :4], image[:, 4:]) if i % 2 else (image[:4], image[4:])
    shown = [int(half[0, 0, 0]) // 10 for half in (first, second)]
    assert all((half == half[0, 0, 0]).all() for half in (first, second))
    assert i in shown and shown[0] != shown[1] and shown[0] % 2 == shown[1] % 2 == i % 2
    assert nouns(record["captions"][0]) == [NOUNS[k] for k in shown]
    assert record["key"] == " and ".join(f"row {k}" for k in shown)


def test_other_texts_say_the_same_in_turn_and_then_something_else():
    orders = set()
    for i in range(6):
        record = pairs.Pairs(Singles(), side=8)[i]
        caption, (joined,) = record["captions"][0], record["texts"]["joined"]
        halves = caption.removesuffix(".").split(". ")
        assert joined[0] == f"{halves[1]}. {halves[0]}."
        assert len(joined) == 3
        for text in joined[1:]:
            assert sorted(nouns(text)) == sorted(nouns(caption))
            assert not {*text.removesuffix(".").split(". ")} & {*halves}
            orders.add(nouns(text) == nouns(caption))
    assert orders == {True, False}


def test_images_with_one_caption_have_one_other_text():
    (joined,) = pairs.Pairs(Singles(1), side=8)[0]["texts"]["joined"]
    assert len(joined) == 1


def test_a_record_is_a_pure_function_of_seed_and_index():
    one, two, other = (pairs.Pairs(Singles(), 8, pair_seed=seed) for seed in (0, 0, 1))
    assert all(one[i]["captions"] == two[i]["captions"] for i in range(6))
    assert any(one[i]["captions"] != other[i]["captions"] for i in range(6))


def batches(start_step, count):
    captions = sources.all_captions(pairs.Pairs(Singles(), side=8))
    made = pairs.train_batches(
        pairs.Pairs(Singles(), side=8),
        tokenizer=train_tokenizer(captions, 600),
        batch_size=2,
        seed=0,
        image_size=8,
        crop_scale=(1.0, 1.0),
        context_length=32,
        text_rows=(1.0,),
        num_negatives=1,
        make_negatives=of_rules(captions, ("exchange",), num_negatives=1),
        texts=[("joined", 3, 1)],
        start_step=start_step,
    )
    return [next(made) for _ in range(count)]


def test_batches_of_pairs_and_of_singles_take_turns_and_resume():
    whole = batches(0, 5)
    for i, batch in enumerate(whole):
        assert all((name in batch) == (i % 2 == 0) for name in (*TEXTS, "negatives"))
        assert batch["image"].shape == (2, 8, 8, 3)
    for start in (1, 2):
        for expected, batch in zip(whole[start:], batches(start, 5 - start), strict=True):
            assert expected.keys() == batch.keys()
            for name in batch:
                np.testing.assert_array_equal(batch[name], expected[name])
    assert whole[0]["negatives_valid"].all()


def test_one_image_makes_no_pair():
    with pytest.raises(ValueError, match="two images"):
        pairs.Pairs([Singles()[0]])
