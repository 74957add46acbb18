"""Hard negatives by rule, held against what each type promises, on real and on hard captions."""

import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from captions import rules
from captions.rules import RuleNegatives
from data import sources
from data.english import article

REPOSITORY = Path(__file__).parents[2]
HARD = [
    "",
    " ",
    "...",
    "dog",
    "Dog.",
    "dog dog dog",
    "Running quickly !",
    "Ein Mädchen läuft über die Straße .",
    "日本の犬",
    "🙂 🙂",
    "A  black\tdog ,  a white-ish cat",
    "A MAN AND A DOG",
    "the man's dog isn't here",
    "x" * 5000,
    "A Frisbee",
]
FOUR_OF_FIVE = "A black dog chases a white cat on an old bench ."


@pytest.fixture(scope="module")
def records(shared):
    return json.loads((shared / "data/flickr8k/captions.json").read_text())[:200]


@pytest.fixture(scope="module")
def captions(records):
    return [caption for record in records for caption in record["captions"]]


@pytest.fixture(scope="module")
def negatives(captions):
    return RuleNegatives.from_captions(captions)


def one_of(negatives, name, **options):
    return RuleNegatives(negatives.vocabulary, types=(name,), num_negatives=1, **options)


def words(text):
    """Words of a caption by another route than the rules': "a" for "an", bare of punctuation."""
    stripped = (word.strip(".,!?;:\"'()").lower() for word in text.split())
    return ["a" if word == "an" else word for word in stripped if word]


def pairs(negatives, name, captions):
    rng = np.random.default_rng(1)
    write = one_of(negatives, name)
    for caption in captions:
        (text,), (valid,), filled = write(caption, rng)
        assert filled == 0 and valid == bool(text)
        if valid:
            yield caption, text


def test_reshuffle_permutes_the_words_and_leaves_the_punctuation(negatives, captions):
    made = list(pairs(negatives, "reshuffle", captions))
    assert len(made) == len(captions)
    for caption, text in made:
        assert Counter(caption.lower()) == Counter(text.lower())
        assert caption.endswith(".") == text.endswith(".")


@pytest.mark.parametrize(
    "name, tags", [("swap_nouns", rules.NOUNS), ("swap_adjectives", rules.ADJECTIVES)]
)
def test_swap_exchanges_two_tagged_words(negatives, captions, name, tags):
    made = list(pairs(negatives, name, captions))
    assert len(made) > 0.15 * len(captions)
    for caption, text in made:
        sentence, changed = rules.parse(caption), rules.parse(text).words
        at = [
            i
            for i, (old, new) in enumerate(zip(sentence.words, changed, strict=True))
            if old.lower() != new.lower() and {old.lower(), new.lower()} != {"a", "an"}
        ]
        assert len(at) == 2
        assert {sentence.tags[i] for i in at} <= tags
        assert sorted(words(caption)) == sorted(words(text))


@pytest.mark.parametrize(
    "name, tags", [("replace_noun", rules.NOUNS), ("replace_adjective", rules.ADJECTIVES)]
)
def test_replace_changes_one_tagged_word_to_one_of_its_kind(negatives, captions, name, tags):
    made = list(pairs(negatives, name, captions))
    assert len(made) > 0.5 * len(captions)
    for caption, text in made:
        sentence, changed = rules.parse(caption), rules.parse(text).words
        differing = [
            (i, new.lower())
            for i, (old, new) in enumerate(zip(sentence.words, changed, strict=True))
            if old.lower() != new.lower() and {old.lower(), new.lower()} != {"a", "an"}
        ]
        ((i, new),) = differing
        assert sentence.tags[i] in tags
        assert new in negatives.vocabulary.words[sentence.tags[i]]  # same kind, same number
        assert new not in words(caption)


def test_articles_agree_with_a_changed_word(negatives, captions):
    for name in ("swap_nouns", "swap_adjectives", "replace_noun", "replace_adjective"):
        for caption, text in pairs(negatives, name, captions):
            before, after = caption.lower().split(), text.lower().split()
            for old, used, word in zip(before[1:], after, after[1:], strict=False):
                if used in ("a", "an") and old != word:
                    assert used == article(word), text


def test_exchanges_that_keep_the_meaning_are_not_made(negatives):
    rng = np.random.default_rng(0)
    for name, caption in [
        ("swap_nouns", "A man and a woman ."),
        ("swap_adjectives", "A small white dog ."),
        ("swap_adjectives", "A black and white dog ."),
        ("swap_nouns", "A group of dogs ."),
    ]:
        assert one_of(negatives, name)(caption, rng) == ([""], [False], 0)


def test_replacements_keep_clear_of_the_other_captions(negatives, records):
    write = one_of(negatives, "replace_noun")
    rng = np.random.default_rng(0)
    for record in records:
        caption, *others = record["captions"]
        (text,), _, _ = write(caption, rng, avoid=others)
        new = set(words(text)) - set(words(caption))
        assert not new & {word for other in others for word in words(other)}


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("num_negatives", [1, 4, 5, 9])
def test_every_negative_is_new(negatives, captions, fill, num_negatives):
    write = RuleNegatives(negatives.vocabulary, num_negatives=num_negatives, fill=fill)
    rng = np.random.default_rng(0)
    for caption in captions[:200] + HARD:
        texts, valid, filled = write(caption, rng)
        assert len(texts) == len(valid) == num_negatives
        assert [bool(text) for text in texts] == valid
        kept = [" ".join(text.lower().split()) for text in texts if text]
        assert len({*kept, " ".join(caption.lower().split())}) == len(kept) + 1
        assert 0 <= filled <= sum(valid) if fill else filled == 0


def test_hard_captions_that_hold_nothing_to_change_have_no_negatives(negatives):
    for caption in ["", " ", "...", "🙂 🙂"]:
        assert negatives(caption, np.random.default_rng(0)) == ([""] * 4, [False] * 4, 0)


def test_a_changed_caption_keeps_its_spaces_and_punctuation(negatives):
    caption = "A  black\tdog ,  a white cat!"
    (text,), _, _ = one_of(negatives, "swap_nouns")(caption, np.random.default_rng(0))
    assert text == "A  black\tcat ,  a white dog!"


def test_the_first_word_gets_the_capital(negatives):
    (text,), _, _ = one_of(negatives, "swap_nouns")("Dogs run to cats", np.random.default_rng(0))
    assert text == "Cats run to dogs"


def test_which_types_are_drawn_varies_but_slots_stay_when_all_fit(negatives):
    rng = np.random.default_rng(0)
    kinds = RuleNegatives(negatives.vocabulary, num_negatives=5, fill=False)
    for _ in range(20):
        texts, valid, _ = kinds(FOUR_OF_FIVE, rng)
        assert all(valid)
        assert sorted(words(texts[0])) == sorted(words(FOUR_OF_FIVE))
        assert len(set(words(texts[3])) - set(words(FOUR_OF_FIVE))) == 1
    drawn = {tuple(negatives._slots(rng)) for _ in range(100)}
    assert len({frozenset(d) for d in drawn}) == 5


def test_slots_that_another_type_fills_are_counted(negatives):
    caption = "A dog jumps ."  # one noun, no adjective: only two of the five types apply
    wanted = RuleNegatives(negatives.vocabulary, num_negatives=5)
    texts, valid, filled = wanted(caption, np.random.default_rng(0))
    assert all(valid) and filled == 3
    bare = RuleNegatives(negatives.vocabulary, num_negatives=5, fill=False)
    _, valid, filled = bare(caption, np.random.default_rng(0))
    assert valid == [True, False, False, False, True] and filled == 0
    expected = dict.fromkeys(rules.TYPES, 0.0) | {"reshuffle": 1.0, "replace_noun": 1.0}
    assert rules.applicability(negatives, [caption]) == expected


def test_the_same_generator_gives_the_same_negatives_also_after_pickling(negatives, captions):
    def run(write):
        rng = np.random.default_rng(7)
        return [write(caption, rng) for caption in captions[:50]]

    assert run(negatives) == run(pickle.loads(pickle.dumps(negatives)))


def test_replacement_words_follow_their_frequency(negatives):
    draws = [
        word
        for seed in range(400)
        for word in negatives.vocabulary.draw("AJ0", np.random.default_rng(seed))
    ]
    counts = np.diff(negatives.vocabulary.cumulative["AJ0"], prepend=0)
    top = int(counts.argmax())
    expected = counts[top] / counts.sum()
    share = draws.count(negatives.vocabulary.words["AJ0"][top]) / len(draws)
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / len(draws)))


def test_an_unknown_type_is_named(negatives):
    with pytest.raises(ValueError, match=r"\['swap_verbs'\].*'reshuffle'"):
        RuleNegatives(negatives.vocabulary, types=("swap_verbs",))


def run(*arguments):
    command = [sys.executable, "-m", "captions.rules", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_command_writes_what_the_degla_source_reads(shared, tmp_path):
    flickr = shared / "data/flickr8k"
    records = json.loads((flickr / "captions.json").read_text())[:10]
    (tmp_path / "captions.json").write_text(json.dumps(records))
    (tmp_path / "images").symlink_to(flickr / "images")
    done = run(tmp_path, "--out", tmp_path / "degla.json")
    assert done.returncode == 0, done.stderr
    source = sources.load("degla", tmp_path, images="images")
    assert len(source) == 50
    assert source[7]["captions"] == [records[1]["captions"][2]]
    assert source[7]["image"].endswith(records[1]["image"])
    assert all(1 <= len(record["negatives"]) <= 4 for record in source)


def test_the_command_says_in_a_line_what_is_missing(tmp_path):
    done = run(tmp_path, "--out", tmp_path / "degla.json")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "captions.json" in done.stderr
