"""Hard negatives by rule, held against what each type promises, on real and on hard captions."""

import dataclasses
import json
import pickle
from collections import Counter

import numpy as np
import pytest

from captions import mixture, rules, sentences, types
from data.english import article

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
    return mixture.of_rules(captions)


@pytest.fixture(scope="module")
def vocabulary(negatives):
    ((rules, _),) = negatives.origins
    return rules.vocabulary


def with_types(negatives, *names, **options):
    ((rules, weight),) = negatives.origins
    rules = mixture.FromRules(rules.vocabulary, names)
    return mixture.Mixture(((rules, weight),), dict.fromkeys(names, 1.0), **options)


def one_of(negatives, name):
    return with_types(negatives, name, num_negatives=1)


def write(negatives, caption, rng, avoid=()):
    return negatives({"captions": [caption, *avoid]}, 0, rng)


def words(text):
    """Words of a caption by another route than the rules': "a" for "an", bare of punctuation."""
    stripped = (word.strip(".,!?;:\"'()").lower() for word in text.split())
    return ["a" if word == "an" else word for word in stripped if word]


def pairs(negatives, name, captions):
    rng = np.random.default_rng(1)
    one = one_of(negatives, name)
    for caption in captions:
        (text,), (valid,), filled = write(one, caption, rng)
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
    "name, tags", [("swap_nouns", sentences.NOUNS), ("swap_adjectives", sentences.ADJECTIVES)]
)
def test_swap_exchanges_two_tagged_words(negatives, captions, name, tags):
    made = list(pairs(negatives, name, captions))
    assert len(made) > 0.15 * len(captions)
    for caption, text in made:
        sentence, changed = sentences.parse(caption), sentences.parse(text).words
        at = [
            i
            for i, (old, new) in enumerate(zip(sentence.words, changed, strict=True))
            if old.lower() != new.lower() and {old.lower(), new.lower()} != {"a", "an"}
        ]
        assert len(at) == 2
        assert {sentence.tags[i] for i in at} <= tags
        assert sorted(words(caption)) == sorted(words(text))


@pytest.mark.parametrize(
    "name, tags", [("replace_noun", sentences.NOUNS), ("replace_adjective", sentences.ADJECTIVES)]
)
def test_replace_changes_one_tagged_word_to_one_of_its_kind(
    negatives, vocabulary, captions, name, tags
):
    made = list(pairs(negatives, name, captions))
    assert len(made) > 0.5 * len(captions)
    for caption, text in made:
        sentence, changed = sentences.parse(caption), sentences.parse(text).words
        differing = [
            (i, new.lower())
            for i, (old, new) in enumerate(zip(sentence.words, changed, strict=True))
            if old.lower() != new.lower() and {old.lower(), new.lower()} != {"a", "an"}
        ]
        ((i, new),) = differing
        assert sentence.tags[i] in tags
        assert new in vocabulary.words[sentence.tags[i]]  # same kind, same number
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
        assert write(one_of(negatives, name), caption, rng) == ([""], [False], 0)


def test_replacements_keep_clear_of_the_other_captions(negatives, records):
    one = one_of(negatives, "replace_noun")
    rng = np.random.default_rng(0)
    for record in records:
        caption, *others = record["captions"]
        (text,), _, _ = one(record, 0, rng)
        new = set(words(text)) - set(words(caption))
        assert not new & {word for other in others for word in words(other)}


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("num_negatives", [1, 4, 5, 9])
def test_every_negative_is_new(negatives, captions, fill, num_negatives):
    several = dataclasses.replace(negatives, num_negatives=num_negatives, fill=fill)
    rng = np.random.default_rng(0)
    for caption in captions[:200] + HARD:
        texts, valid, filled = write(several, caption, rng)
        assert len(texts) == len(valid) == num_negatives
        assert [bool(text) for text in texts] == valid
        kept = [" ".join(text.lower().split()) for text in texts if text]
        assert len({*kept, " ".join(caption.lower().split())}) == len(kept) + 1
        assert 0 <= filled <= sum(valid) if fill else filled == 0


def test_hard_captions_that_hold_nothing_to_change_have_no_negatives(negatives):
    for caption in ["", " ", "...", "🙂 🙂"]:
        done = write(negatives, caption, np.random.default_rng(0))
        assert done == ([""] * 4, [False] * 4, 0)


def test_a_changed_caption_keeps_its_spaces_and_punctuation(negatives):
    caption = "A  black\tdog ,  a white cat!"
    (text,), _, _ = write(one_of(negatives, "swap_nouns"), caption, np.random.default_rng(0))
    assert text == "A  black\tcat ,  a white dog!"


def test_the_first_word_gets_the_capital(negatives):
    one = one_of(negatives, "swap_nouns")
    (text,), _, _ = write(one, "Dogs run to cats", np.random.default_rng(0))
    assert text == "Cats run to dogs"


def test_which_types_are_drawn_varies_but_slots_stay_when_all_fit(negatives):
    rng = np.random.default_rng(0)
    kinds = dataclasses.replace(negatives, num_negatives=5, fill=False)
    for _ in range(20):
        texts, valid, _ = write(kinds, FOUR_OF_FIVE, rng)
        assert all(valid)
        assert sorted(words(texts[0])) == sorted(words(FOUR_OF_FIVE))
        assert len(set(words(texts[3])) - set(words(FOUR_OF_FIVE))) == 1
    drawn = {tuple(name for _, name in negatives._slots(rng)) for _ in range(100)}
    assert len({frozenset(d) for d in drawn}) == 5


def test_slots_that_another_type_fills_are_counted(negatives):
    caption = "A dog jumps ."  # one noun, no adjective: only two of the five types apply
    wanted = dataclasses.replace(negatives, num_negatives=5)
    texts, valid, filled = write(wanted, caption, np.random.default_rng(0))
    assert all(valid) and filled == 3
    bare = dataclasses.replace(negatives, num_negatives=5, fill=False)
    _, valid, filled = write(bare, caption, np.random.default_rng(0))
    assert valid == [True, False, False, False, True] and filled == 0


def test_the_same_generator_gives_the_same_negatives_also_after_pickling(negatives, captions):
    def run(negatives):
        rng = np.random.default_rng(7)
        return [write(negatives, caption, rng) for caption in captions[:50]]

    assert run(negatives) == run(pickle.loads(pickle.dumps(negatives)))


def test_replacement_words_follow_their_frequency(vocabulary):
    draws = [
        word for seed in range(400) for word in vocabulary.draw("AJ0", np.random.default_rng(seed))
    ]
    counts = np.diff(vocabulary.cumulative["AJ0"], prepend=0)
    top = int(counts.argmax())
    expected = counts[top] / counts.sum()
    share = draws.count(vocabulary.words["AJ0"][top]) / len(draws)
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / len(draws)))


def test_exchange_takes_a_word_of_each_caption_with_the_same_tag():
    text = "A red dog is running. Two cats sleep on a bed."
    rng = np.random.default_rng(0)
    vocabulary = rules.Vocabulary.from_captions([text])
    rule = types.load("exchange").rule
    drawn = {c for _ in range(10) for c in rule(sentences.parse(text), vocabulary, set(), rng)}
    words = sorted(text.replace(".", "").lower().split())
    assert drawn == {
        "A red bed is running. Two cats sleep on a dog.",
        "Two cats sleep on a dog. A red bed is running.",
    }
    for candidate in drawn:
        assert sorted(candidate.replace(".", "").lower().split()) == words
    assert not list(rule(sentences.parse("A dog and a cat."), vocabulary, set(), rng))


def test_exchange_takes_nouns_adjectives_and_verbs():
    text = "A tall girl flies a kite. An old man paints a fence."
    drawn = types.load("exchange").rule(
        sentences.parse(text),
        rules.Vocabulary.from_captions([text]),
        set(),
        np.random.default_rng(0),
    )
    assert {frozenset(candidate.rstrip(".").split(". ")) for candidate in drawn} == {
        frozenset({"An old girl flies a kite", "A tall man paints a fence"}),
        frozenset({"A tall girl paints a kite", "An old man flies a fence"}),
        frozenset({"A tall man flies a kite", "An old girl paints a fence"}),
        frozenset({"A tall fence flies a kite", "An old man paints a girl"}),
        frozenset({"A tall girl flies a man", "An old kite paints a fence"}),
        frozenset({"A tall girl flies a fence", "An old man paints a kite"}),
    }


def test_exchange_leaves_capitals_where_they_are():
    text = "Cats on a bed. Dogs sleep."
    vocabulary, rng = rules.Vocabulary.from_captions([text]), np.random.default_rng(0)
    drawn = types.load("exchange").rule(sentences.parse(text), vocabulary, set(), rng)
    assert {frozenset(candidate.rstrip(".").split(". ")) for candidate in drawn} == {
        frozenset({"Dogs on a bed", "Cats sleep"})
    }
