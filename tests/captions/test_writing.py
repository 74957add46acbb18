"""What becomes of drafts: every one is counted, and none is written unchecked."""

import numpy as np
import pytest

from captions import writing
from captions.writers import Draft
from captions.writing import Item, Limits, Tally

CAPTION = "A black dog chases a white cat ."
GOOD = ["A black cat chases a white dog .", "A white dog chases a black cat ."]
ITEM = Item(CAPTION, "1.jpg", ("Two pets run.",))


class Planted:
    """A writer that offers what it is given, a list for each attempt."""

    name, model, seed, spent = "planted", "weights", 7, (0, 0.0)

    def __init__(self, *attempts, likelihoods=None):
        self.attempts, self.likelihoods = attempts, likelihoods

    def __call__(self, requests, attempt):
        drafts = self.attempts[attempt]
        if drafts is not None:
            drafts = [Draft(text, tokens=5) for text in drafts]
        return [drafts for _ in requests]

    def prompt_version(self, name):
        return "planted"

    def log_likelihoods(self, texts):
        return self.likelihoods and np.array([self.likelihoods[text] for text in texts])


def write(*attempts, names=("swap_nouns",), likelihoods=None, **limits):
    writer = Planted(*attempts, likelihoods=likelihoods)
    limits = Limits(attempts=len(attempts), **limits)
    ((row,), tally) = writing.write([ITEM], writer, names, limits)
    return row, tally, {name: dict(counts) for name, counts in tally.types.items()}


def test_the_first_draft_that_passes_is_written_with_where_it_comes_from():
    row, tally, counts = write(["", CAPTION, GOOD[0]])
    assert row == {
        "image": "1.jpg",
        "caption": CAPTION,
        "negatives": [
            {
                "text": GOOD[0],
                "type": "swap_nouns",
                "writer": "planted",
                "model": "weights",
                "prompt_version": "planted",
                "seed": 7,
                "attempts": 1,
            }
        ],
    }
    expected = {"wanted": 1, "drafts": 3, "empty": 1, "unchanged": 1, "passed": 1, "written": 1}
    assert counts == {"swap_nouns": expected}
    assert tally.tokens == 15 and tally.captions == 1


def test_what_is_missing_is_asked_for_again_and_nothing_else():
    row, _, counts = write([CAPTION], [GOOD[0]], [GOOD[0]])
    assert row["negatives"][0]["attempts"] == 2
    assert counts["swap_nouns"]["drafts"] == 2


def test_no_answer_is_counted_and_asked_for_again():
    row, _, counts = write(None, [GOOD[0]])
    assert counts["swap_nouns"]["no_answer"] == 1 and len(row["negatives"]) == 1
    row, _, counts = write(None, None)
    assert counts["swap_nouns"]["no_answer"] == 2 and row["negatives"] == []


def test_a_type_that_does_not_apply_is_counted_once():
    _, _, counts = write([], [], [])
    assert counts["swap_nouns"] == {"wanted": 1, "not_applicable": 1}


def test_a_siblings_text_is_not_written_twice():
    row, _, counts = write([GOOD[0]], names=("swap_nouns", "reshuffle"))
    assert [n["type"] for n in row["negatives"]] == ["swap_nouns"]
    assert counts["reshuffle"]["duplicate"] == 1


def test_more_than_wanted_passes_and_is_left():
    row, _, counts = write(GOOD, names=("reshuffle",))
    assert len(row["negatives"]) == 1 and counts["reshuffle"]["passed"] == 2
    row, _, _ = write(GOOD, names=("reshuffle",), per_type=2)
    assert [n["text"] for n in row["negatives"]] == GOOD


def test_a_draft_must_read_as_well_as_its_caption_where_the_writer_can_tell():
    for likelihood, written in ((-2.9, 1), (-3.1, 0)):
        row, _, counts = write([GOOD[0]], likelihoods={CAPTION: -2.0, GOOD[0]: likelihood})
        assert len(row["negatives"]) == written
        assert counts["swap_nouns"].get("not_fluent", 0) == 1 - written
    row, _, _ = write([GOOD[0]], names=("reshuffle",), likelihoods={CAPTION: 0.0, GOOD[0]: -9.0})
    assert len(row["negatives"]) == 1  # it is not meant to read well


def test_what_is_nearer_the_image_than_its_caption_is_dropped():
    asked = []

    def margin(images, captions, drafts):
        asked.append((images, captions, drafts))
        return np.array([0.2 if draft == GOOD[0] else -0.1 for draft in drafts])

    row, _, counts = write(GOOD, names=("reshuffle",), image_margin=margin)
    assert [n["text"] for n in row["negatives"]] == [GOOD[1]]
    assert counts["reshuffle"]["nearer_the_image"] == 1
    assert asked == [([None, None], [CAPTION, CAPTION], GOOD)]
    row, _, _ = write(GOOD, names=("reshuffle",), image_margin=margin, nearest=0.3)
    assert row["negatives"][0]["text"] == GOOD[0]


@pytest.mark.parametrize(
    "draft, caption, expected",
    [
        ("a cat.", "A dog .", "A cat ."),
        ("A cat", "a dog.", "a cat."),
        ("  A cat !", "A dog", "A cat"),
        ("A cat .", "A dog .", "A cat ."),
        ('A "cat"', 'A "dog"', 'A "cat"'),
        ("", "A dog .", ""),
        ("x", "", "x"),
    ],
)
def test_a_draft_ends_and_begins_as_its_caption_does(draft, caption, expected):
    assert writing.tidy(draft, caption) == expected


def test_tallies_add_up_and_survive_json():
    _, one, _ = write([CAPTION, GOOD[0]])
    total = one + Tally.from_json(one.to_json())
    assert total.types["swap_nouns"]["drafts"] == 4 and total.captions == 2
    assert total.seconds == 2 * one.seconds
