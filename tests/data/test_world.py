"""The embedded world: its captions are true, its negatives false, its pictures show its scenes.

Truth is judged by `is_true`, a reader of English that shares no code with data/world.py.
"""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from data.english import plural
from data.glyphs import GLYPHS, NOUNS, sprite
from data.world import COLOURS, SIZES, TYPES, World, load

GOLDEN = Path(__file__).parents[1] / "golden"
THING = (
    r"(?P<number>an?|two|three|four)(?: (?P<size>big|small))? (?P<noun>\w+)"
    r"(?: on (?:an? (?P<tiled>\w+) tile|(?P<colour>\w+)))?"
)
JOINT = r"(?P<joint>and|with|together with|(?:to the )?(?:left|right) of|above|over|below|under)"
_ANY = re.sub("P<.*?>", ":", THING)
SENTENCE = re.compile(
    "(?:a picture of |a scene with |this shows |we see )?"
    rf"(?P<first>{_ANY})(?: {JOINT} (?P<second>{_ANY}))?"
)
NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
SINGULAR = {plural(noun): noun for noun in GLYPHS} | {noun: noun for noun in GLYPHS}
# Where the first of two things lies, seen from the second: (steps right, steps down).
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "over": (0, -1)}
DIRECTIONS |= {"below": (0, 1), "under": (0, 1)}


def direction(words):
    return next((DIRECTIONS[word] for word in words.split() if word in DIRECTIONS), None)


def is_true(text, scene):
    """Whether the text is a sentence that is true of the scene; None if it is no sentence."""
    sentence = SENTENCE.fullmatch(text)
    if not sentence:
        return None
    said = [re.fullmatch(THING, part) for part in sentence.group("first", "second") if part]
    if any(match["noun"] not in SINGULAR for match in said):
        return None

    def agrees(match, thing):
        colour = match["tiled"] or match["colour"]
        return (
            SINGULAR[match["noun"]] == thing.noun
            and NUMBERS[match["number"]] == thing.count
            and match["size"] in (None, thing.size)
            and colour in (None, thing.colour)
        )

    if len(said) == 1:
        return any(agrees(said[0], thing) for thing in scene.things)
    wanted = direction(sentence["joint"])
    shown = direction(scene.relation)
    for things, lies in (
        (scene.things, shown),
        (scene.things[::-1], shown and (-shown[0], -shown[1])),
    ):
        matched = len(things) == 2 and all(map(agrees, said, things))
        if matched and wanted in (None, lies):
            return True
    return False


@pytest.fixture(scope="module", params=[True, False], ids=["relations", "no relations"])
def examples(request):
    world = World(relations=float(request.param))
    return [world.example(i) for i in range(600)]


def test_captions_are_true(examples):
    for example in examples:
        assert is_true(example.caption, example.scene) is True, example.caption


def test_negatives_are_false(examples):
    for example in examples:
        for kind, text in example.negatives.items():
            # A reshuffled caption says nothing at all, any other negative says what is not so.
            expected = None if kind == "reshuffle" else False
            assert is_true(text, example.scene) is expected, (example.caption, kind, text)


def test_the_negatives_of_records_are_false_too():
    for relations in (True, False):
        world = World(relations=relations, num_negatives=12)
        for i in range(200):
            scene, record = world.example(i).scene, world[i]
            assert is_true(record["captions"][0], scene)
            assert not any(is_true(text, scene) for text in record["negatives"])


def test_each_type_changes_what_it_is_named_after(examples):
    for example in examples:
        words = example.caption.split()
        for kind, text in example.negatives.items():
            gone, new = set(words) - set(text.split()), set(text.split()) - set(words)
            gone, new = gone - {"a", "an"}, new - {"a", "an"}
            if kind == "reshuffle" or kind.startswith("swap"):
                assert not gone and not new
            if kind == "reshuffle":
                assert sorted(words) == sorted(text.split())
            if kind == "swap_nouns":
                assert [w for w in words if w in COLOURS] == [
                    w for w in text.split() if w in COLOURS
                ]
            if kind == "replace_noun":
                assert gone <= set(SINGULAR) and new <= set(SINGULAR)
            if kind == "replace_adjective":
                assert new <= {*COLOURS, *SIZES}
            if kind == "replace_relation":
                assert not (gone | new) & {*SINGULAR, *COLOURS, *SIZES}


def test_types_apply_as_often_as_scenes_allow(examples):
    share = {t: np.mean([t in example.negatives for example in examples]) for t in TYPES}
    assert share["reshuffle"] == share["replace_noun"] == 1
    assert share["replace_adjective"] > 0.8
    assert share["swap_nouns"] > 0.5
    assert share["swap_adjectives"] > 0.5
    with_relations = any(direction(example.caption) for example in examples)
    assert share["replace_relation"] == pytest.approx(0.75 if with_relations else 0, abs=0.08)


def test_relations_is_the_share_of_captions_that_say_one():
    captions = [World(relations=0.3).captions(i)[0] for i in range(1000)]
    said = np.mean([direction(caption) is not None for caption in captions])
    assert said == pytest.approx(0.3 * 0.75, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_told_first_is_the_share_of_captions_told_from_the_left_or_upper_thing(share):
    world = World(pairs=1.0, told_first=share)
    told = [direction(world.captions(i)[0]) in ((-1, 0), (0, -1)) for i in range(1000)]
    assert np.mean(told) == pytest.approx(share, abs=0.05)


def test_types_are_those_of_the_negatives():
    world = World(types=("swap_things",), num_negatives=2, size=32)
    for i in range(300):
        record, scene = world[i], world.example(i).scene
        assert len(record["negatives"]) == len(scene.things) - 1
        for text in record["negatives"]:
            assert is_true(text, scene) is False
            assert direction(text) == direction(record["captions"][0])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pairs_is_the_share_of_scenes_with_two_things(share):
    world = World(pairs=share, size=32)
    shown = [len(world.example(i).scene.things) == 2 for i in range(400)]
    assert np.mean(shown) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_colours_is_the_share_of_captions_that_say_them(share):
    world = World(colours=share)
    said = [bool(COLOURS.keys() & world.captions(i)[0].split()) for i in range(1000)]
    assert np.mean(said) == pytest.approx(share, abs=0.05)


def test_articles_agree(examples):
    misleading = {"unicorn": "a", "hourglass": "an"}
    for example in examples:
        for kind, text in {"": example.caption, **example.negatives}.items():
            for used, word in re.findall(r"\b(an?) (\w+)", text) if kind != "reshuffle" else ():
                assert used == misleading.get(word, "an" if word[0] in "aeiou" else "a"), text


def test_a_record_is_a_pure_function_of_seed_part_and_index():
    world = World()
    forwards = [world[i] for i in (0, 5, 9)]
    for again in (World(length=10), pickle.loads(pickle.dumps(world))):
        for record, i in zip(reversed(forwards), (9, 5, 0), strict=True):
            image = record.pop("image")
            other = again[i]
            assert np.array_equal(image, other.pop("image"))
            assert record == other
            record["image"] = image
    for other in (World(seed=1), World(part="test")):
        assert not any(np.array_equal(world[i]["image"], other[i]["image"]) for i in range(20))


def test_captions_are_those_of_the_records():
    world = World()
    assert [world.captions(i) for i in range(50)] == [world[i]["captions"] for i in range(50)]


def test_a_record_has_as_many_different_negatives_as_asked_for():
    for wanted in (0, 1, 4, 8):
        world = World(num_negatives=wanted, size=32)
        for i in range(100):
            texts = world[i]["negatives"]
            assert len(texts) == wanted
            assert len({*texts, world[i]["captions"][0]}) == wanted + 1


def test_class_splits_do_not_leak():
    assert not set(NOUNS["seen"]) & set(NOUNS["unseen"])
    assert {*NOUNS["seen"], *NOUNS["unseen"]} == set(NOUNS["all"]) == set(GLYPHS)
    assert not set(NOUNS["further"]) & set(NOUNS["fresh"])
    assert {*NOUNS["further"], *NOUNS["fresh"]} == set(NOUNS["unseen"])
    assert min(len(NOUNS["further"]), len(NOUNS["fresh"])) >= 70
    pairs = ("seen", "unseen"), ("unseen", "seen"), ("further", "fresh"), ("further", "seen")
    for nouns, absent in pairs:
        banned = {form for noun in NOUNS[absent] for form in (noun, plural(noun))}
        for i in range(300):
            record = World(nouns=nouns)[i]
            for text in record["captions"] + record["negatives"]:
                assert not banned & set(text.split())


def test_parts_share_no_scene():
    train, test = (
        {World(part=part)[i]["image"].tobytes() for i in range(300)} for part in ("train", "test")
    )
    assert len(train) == len(test) == 300 and not train & test


def centre(image, colour):
    """Middle (x, y) of a tile, by its colour alone: glyphs hide much and may have some of it."""
    y, x = np.nonzero((image == COLOURS[colour]).all(-1))
    return np.mean([np.percentile((x, y), q, axis=1) for q in (3, 97)], axis=0)


@pytest.mark.parametrize("size", [64, 224])
def test_pictures_show_where_things_are(size):
    world = World(size=size)
    for i in range(100):
        example = world.example(i)
        assert example.image.shape == (size, size, 3) and example.image.dtype == np.uint8
        if len(example.scene.things) == 2:
            offset = np.subtract(
                *(centre(example.image, thing.colour) for thing in example.scene.things)
            )
            towards = np.array(direction(example.scene.relation))
            along, across = offset @ towards, abs(offset @ towards[::-1])
            assert along > 0.3 * size and across < along


def test_pictures_show_how_big_things_are():
    for i in range(300):
        example = World(size=128).example(i)
        (thing, *others) = example.scene.things
        if not others and thing.count == 1:
            y, x = np.nonzero((example.image == COLOURS[thing.colour]).all(-1))
            tile = example.image[y.min() : y.max() + 1, x.min() : x.max() + 1]
            y, x = np.nonzero((tile != COLOURS[thing.colour]).any(-1))
            extent = max(np.ptp(y), np.ptp(x)) + 1
            assert extent == pytest.approx(SIZES[thing.size] * 128, abs=3)


def test_every_thing_has_a_glyph_of_its_own():
    pictures = {sprite(noun, 64)[0].tobytes() for noun in GLYPHS}
    assert len(pictures) == len(GLYPHS) > 200
    assert len(SINGULAR) == len({*GLYPHS, *map(plural, GLYPHS)})
    assert not set(SINGULAR) & {*COLOURS, *SIZES}


def test_scenes_are_the_same_on_every_python():
    """Texts exactly, pictures up to how a font is rasterised (made by golden/make_world.py)."""
    texts = json.loads((GOLDEN / "world.json").read_text(encoding="utf-8"))
    images = np.load(GOLDEN / "world.npz")["images"]
    world = World()
    for i, (expected, image) in enumerate(zip(texts, images, strict=True)):
        record = world[i]
        assert [*record["captions"], *record["negatives"]] == expected
        difference = np.abs(record["image"].astype(float) - image)
        assert difference.mean() < 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"part": "dev"}, "no part 'dev'.*'train', 'test'"),
        ({"nouns": "some"}, "no nouns 'some'.*'seen'"),
        ({"size": 8}, "size is 8, must be >= 32"),
        ({"types": ("swap_verb",)}, "type 'swap_verb': use one of .*reshuffle"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load("", **options)


def test_the_index_is_checked():
    assert len(World(length=3)) == 3
    with pytest.raises(IndexError):
        World(length=3)[3]


@pytest.mark.parametrize("relations", [0.0, 1.0])
def test_units_are_true_and_their_foils_false(relations):
    world = World(relations=relations, units=True)
    kinds = set()
    for i in range(200):
        scene, record = world.example(i).scene, world[i]
        (pairs,) = record["texts"]["units"]
        for unit, foil in pairs:
            assert is_true(unit, scene) is True, (record["captions"], unit)
            assert is_true(foil, scene) is False, (unit, foil)
            gone = (set(unit.split()) ^ set(foil.split())) - {"a", "an", "to", "the", "of"}
            assert len(gone) <= 2, (unit, foil)
            kinds.add((len(SENTENCE.fullmatch(unit).group("second") or "") > 0, "of" in unit))
        joints = {SENTENCE.fullmatch(unit)["joint"] for unit, _ in pairs}
        assert any(map(direction, filter(None, joints))) == (
            relations == 1 and len(scene.things) == 2
        )
    assert len(kinds) > 1


def test_paraphrases_are_true_and_say_it_otherwise():
    world = World(paraphrases=2)
    counts = []
    for i in range(200):
        scene, record = world.example(i).scene, world[i]
        (others,) = record["texts"]["captions"]
        texts = [*record["captions"], *others]
        assert all(is_true(text, scene) for text in texts) and len(set(texts)) == len(texts)
        counts.append(len(others))
    assert max(counts) == 2 and np.mean(counts) > 1.9


def test_further_texts_change_nothing_else():
    plain, more = World(), World(paraphrases=1, units=True)
    for i in range(5):
        record = more[i]
        assert set(record.pop("texts")) == {"captions", "units"}
        assert record.pop("image").tobytes() == plain[i]["image"].tobytes()
        assert record == {name: plain[i][name] for name in record}
