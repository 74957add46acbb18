"""Further texts of a sample: drawn, grouped, masked, packed and refused."""

import numpy as np
import pytest

from data import roles
from data.pipeline import pack_texts, train_batches
from data.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["a dog and a cat on a red mat", "two birds"], 600)
UNITS = [["a dog", "a cat"], ["a cat", "a bird"], ["red mat", "blue mat"]]


def record(i, captions=("a dog and a cat", "two birds"), **texts):
    image = np.full((8, 8, 3), i, np.uint8)
    return {"image": image, "captions": list(captions), "key": f"row {i}", "texts": texts}


def batch_of(source, texts, **options):
    batches = train_batches(
        source,
        tokenizer=TOKENIZER,
        batch_size=len(source),
        seed=0,
        image_size=8,
        crop_scale=(1.0, 1.0),
        context_length=16,
        texts=texts,
        **options,
    )
    return next(batches)


def decoded(texts):
    return TOKENIZER.encode(list(texts), 16)[0]


@pytest.mark.parametrize("packed", [False, True])
def test_groups_are_drawn_without_replacement_and_the_rest_is_empty(packed):
    source = [record(0, units=[UNITS, UNITS[:1]]), record(1, units=[UNITS[:1], []])]
    options = {"text_rows": (0.5,)} if packed else {"text_lengths": ()}
    batch = batch_of(source, [("units", 2, 2)], num_negatives=0, **options)
    units, valid = batch["texts:units"], batch["valid:units"]
    assert units.shape == (2, 2, 2, 16) and units.dtype == np.int32 and valid.dtype == bool
    ids = {tuple(decoded(unit).ravel()) for unit in UNITS}
    for row, is_there in zip(units.reshape(4, -1), valid.ravel(), strict=True):
        assert (tuple(row) in ids) == is_there
        assert is_there or tuple(row) == tuple(decoded(["", ""]).ravel())
    for i, image in enumerate(batch["image"][:, 0, 0, 0]):
        caption = 0 if (batch["text"][i] == decoded(["a dog and a cat"])[0]).all() else 1
        expected = min(2, len(roles.of_caption(source[image], caption, "units")))
        assert valid[i].sum() == expected
        assert len({tuple(row.ravel()) for row in units[i, :expected]}) == expected


def test_other_captions_need_no_entry_in_the_records():
    source = [record(0), record(1, captions=["a red mat"]), record(2, captions=["a cat", "a cat"])]
    batch = batch_of(source, [("captions", 1, 1)], text_lengths=())
    by_image = dict(zip(batch["image"][:, 0, 0, 0].tolist(), range(3), strict=True))
    assert [batch["valid:captions"][by_image[i]].tolist() for i in range(3)] == [
        *([True], [False], [False])  # the other caption of the last says the same
    ]
    i = by_image[0]
    pair = {tuple(batch["text"][i]), tuple(batch["texts:captions"][i, 0])}
    assert pair == {tuple(row) for row in decoded(source[0]["captions"])}


def test_texts_are_packed_in_the_order_that_the_model_expects():
    """models/clip.py: caption, negatives, further texts by the names of their roles."""
    rng = np.random.default_rng(0)

    def texts(*shape):
        return (np.arange(20) < rng.integers(1, 21, (*shape, 1))).astype(np.int32)

    batch = {"texts:b": texts(2, 1), "text": texts(2), "texts:a": texts(2, 2, 2)}
    batch["negatives"] = texts(2, 3)
    slots = pack_texts(batch, text_rows=(1.0,))["text_slots"].ravel()
    names = ("text", "negatives", "texts:a", "texts:b")
    lengths = np.concatenate([batch[name].sum(-1).reshape(2, -1) for name in names], axis=1)
    np.testing.assert_array_equal(np.bincount(slots // 20)[:18], lengths.ravel())


def test_what_is_not_asked_for_is_not_drawn_and_changes_nothing():
    source = [record(i, units=[UNITS, UNITS]) for i in range(4)]
    plain, more = (batch_of(source, texts, text_lengths=()) for texts in ((), [("units", 1, 2)]))
    assert not any(":" in name for name in plain)
    for name in plain:
        np.testing.assert_array_equal(plain[name], more[name])


@pytest.mark.parametrize(
    "source, texts, problem",
    [
        ([record(0)], ("units", 2, 2), "no record of the data has a text of role 'units'"),
        ([record(0, ["a"])], ("captions", 1, 1), "role 'captions', .* several captions"),
        ([record(0, units=[UNITS, []])], ("units", 2, 3), "row 0: .* groups of 2, .* needs .* 3"),
    ],
)
def test_data_without_them_is_refused_at_once(source, texts, problem):
    with pytest.raises(ValueError, match=problem):
        batch_of(source, [texts])
