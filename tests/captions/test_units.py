"""Units of captions, by hand, and from a source to what CS-CLIP draws."""

import json

import numpy as np
import pytest

from captions import units
from captions.rules import Vocabulary
from data import roles, sources
from errors import UserError

CAPTIONS = ["A black dog chases a white cat .", "A tall girl holds a striped kite"]
WORDS = "A brown horse. A cow. Two old men. A cup on a wide shelf."


def plain(caption):
    """The units, none of them two entities."""
    drawn = (units.units(caption, np.random.default_rng(seed)) for seed in range(40))
    return {unit for texts in drawn for unit in texts if " and " not in unit}


@pytest.mark.parametrize(
    "caption, expected",
    [
        (
            "A black dog chases a white cat .",
            {"a black dog", "a white cat", "a black dog chases a white cat"},
        ),
        # Who acts is the first of the clause, what stands where is the one before.
        (
            "A man in a red hat is riding a horse on the beach.",
            {
                *("a man", "a red hat", "a horse", "the beach"),
                *("a man in a red hat", "a man is riding a horse", "a horse on the beach"),
            },
        ),
        (
            "A dog catches a ball thrown by a boy",
            {
                *("a dog", "a ball", "a boy", "a dog catches a ball", "a ball thrown by a boy"),
            },
        ),
        # After "and" somebody else acts.
        (
            "A girl sings and a boy plays a drum.",
            {
                *("a girl", "a boy", "a drum", "a boy plays a drum"),
            },
        ),
        (
            "A group of people in front of a house.",
            {
                *("people", "a house", "people in front of a house"),
            },
        ),
        ("Two cats, three dogs", {"two cats", "three dogs"}),
        ("Running fast!", set()),
        ("", set()),
    ],
)
def test_units_of_a_caption(caption, expected):
    assert plain(caption) == expected


def test_half_of_the_entities_come_with_another():
    drawn = [units.units(CAPTIONS[0], np.random.default_rng(seed)) for seed in range(400)]
    first = [texts[0] for texts in drawn]
    assert set(first) == {"a black dog", "a black dog and a white cat"}
    assert first.count("a black dog") == pytest.approx(200, abs=40)
    assert units.units(CAPTIONS[0], np.random.default_rng(7)) == drawn[7]


def test_a_foil_differs_in_one_word_that_no_caption_of_the_image_has():
    vocabulary = Vocabulary.from_captions([*CAPTIONS, WORDS])
    changed = set()
    for seed in range(60):
        found = units.foil(
            "a black dog", (*CAPTIONS, "an old cow"), vocabulary, np.random.default_rng(seed)
        )
        words = found.split()
        differ = [i for i, pair in enumerate(zip(words, "a black dog".split(), strict=True))
                  if len(set(pair)) == 2]  # fmt: skip
        assert len(differ) == 1 and words[differ[0]] not in ("old", "cow", "tall", "striped")
        changed.add(differ[0])
    assert changed == {1, 2}


def write_source(folder, captions):
    (folder / "pictures").mkdir()
    rows = []
    for i, texts in enumerate(captions):
        (folder / "pictures" / f"{i}.jpg").write_bytes(b"")
        rows.append({"image": f"{i}.jpg", "captions": texts})
    (folder / "captions.json").write_text(json.dumps(rows))
    return {"name": "captions", "root": str(folder), "images": "pictures"}


def test_what_is_written_is_what_the_method_draws(tmp_path):
    source = write_source(tmp_path, [CAPTIONS, [WORDS], ["Go!"]])
    said = units.export(source, tmp_path / "units.json")
    written = sources.load("captions", str(tmp_path), annotations="units.json", images=".")
    roles.check(written, [("units", 2, 2)])
    of_captions = [written[i]["texts"]["units"] for i in range(3)]
    assert list(map(len, of_captions)) == [2, 1, 1] and of_captions[2] == [[]]
    count = sum(len(pairs) for texts in of_captions for pairs in texts)
    assert said == f"{tmp_path}/units.json: {count} units of 4 captions; 1 have none"
    for unit, foil in of_captions[0][0]:
        assert unit != foil and len(unit.split()) == len(foil.split())
    again = tmp_path / "again.json"
    units.export(source, again)
    assert again.read_text() == (tmp_path / "units.json").read_text()


def test_captions_without_units_are_refused(tmp_path):
    with pytest.raises(UserError, match="none of the 1 captions has a unit"):
        units.export(write_source(tmp_path, [["Go!"]]), tmp_path / "units.json")
    assert not (tmp_path / "units.json").exists()


def test_images_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="its image is no file"):
        units.export({"name": "world", "root": "", "length": 2}, tmp_path / "units.json")
