"""The world's benchmark with encoders whose score on every question is known beforehand."""

import numpy as np
import pytest

from benchmarks import world as benchmark
from data.glyphs import NOUNS
from data.world import PREFIXES, TYPES, World, apart, holds, picture
from errors import UserError

SIZE, SCENES, PER_CLASS = 32, 60, 2
NUMBER = {noun: i for i, noun in enumerate(NOUNS["all"])}


def examples(split, count):
    world = World(count, "test", split, SIZE)
    return [world.example(i) for i in range(count)]


class Fake:
    """Embeds what it recognises as sums of axes: a word, or a scene with its exact caption.

    Args:
      describe: text -> names of its axes; an image has those of its caption.
    """

    truncated = 0

    def __init__(self, describe):
        self._describe, self._axes = describe, {}
        self._shown = {
            example.image.tobytes(): example.caption
            for split in ("seen", "unseen", "all")
            for example in examples(split, 4 * SCENES)
        }
        for noun, i in NUMBER.items():
            for k in range(PER_CLASS):
                self._shown[picture(i, k, SIZE, 0).tobytes()] = f"a {noun}"

    def images(self, items):
        return self.texts([self._shown[item.tobytes()] for item in items])

    def texts(self, texts):
        if isinstance(texts[0], tuple):  # phrasings
            rows = [self.texts(phrasings).mean(axis=0) for phrasings in texts]
            return np.stack([row / np.linalg.norm(row) for row in rows])
        if any(isinstance(text, tuple) for text in texts):
            return np.concatenate([self.texts([text]) for text in texts])
        rows = np.zeros((len(texts), 4096), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for name in self._describe(text):
                row[self._axes.setdefault(name, len(self._axes))] = 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def run(describe):
    return benchmark.run(Fake(describe), size=SIZE, scenes=SCENES, per_class=PER_CLASS)


def the_text(text):
    """The noun if that is all that is said of the scene, else the whole text."""
    said = text
    for prefix in PREFIXES[1:]:
        said = said.removeprefix(prefix)
    article, *rest = said.split()
    return rest if article in ("a", "an") and len(rest) == 1 else [text]


def words(text):
    return sorted({"a" if word == "an" else word for word in text.split()})


def test_who_tells_every_text_from_every_other_is_always_right():
    scores = run(the_text)
    wrong = {score.name: score.value for score in scores.scores if score.value < 99.9999}
    assert not wrong
    assert {score.ties for score in scores.scores} == {0}


def test_a_bag_of_words_ties_on_what_order_alone_tells():
    scores = run(words)
    for split in ("seen", "unseen"):
        for kind in ("reshuffle", "swap_nouns", "swap_adjectives"):
            score = scores[f"{split}_{kind}"]
            assert score.value == 0 and score.ties == score.count > 0
        assert scores[f"{split}_replace_noun"].value == 100
        assert scores[f"{split}_swaps"].value == 0
        kinds = [scores[f"{split}_{kind}"].value for kind in TYPES]
        assert scores[f"{split}_composition"].value == pytest.approx(np.mean(kinds))
    both = [scores[f"{split}_composition"].value for split in ("seen", "unseen")]
    assert scores["composition"].value == pytest.approx(np.mean(both))


def test_zero_shot_is_among_the_names_of_the_split():
    seen, unseen = set(NOUNS["seen"]), set(NOUNS["unseen"])

    def one_name_for_all_that_is_unseen(text):
        noun = text.split()[-1]
        return [text] if noun not in NUMBER else ["?" if noun in unseen else noun]

    scores = run(one_name_for_all_that_is_unseen)
    assert scores["zero_shot_seen"].value == 100
    assert scores["zero_shot_unseen"].value == 0
    assert scores["zero_shot_all"].value == pytest.approx(100 * len(seen) / len(NUMBER))
    assert scores["zero_shot_all"].count == PER_CLASS * len(NUMBER)
    assert scores["zero_shot_unseen"].ties == scores["zero_shot_unseen"].count


def test_of_chosen_splits_alone_scenes_and_pictures_are_scored():
    encoder = Fake(words)
    encoder._shown |= {e.image.tobytes(): e.caption for e in examples("fresh", SCENES)}
    options = dict(size=SIZE, scenes=SCENES, per_class=PER_CLASS)
    scores = benchmark.run(encoder, splits=("seen", "fresh"), **options)
    names = {score.name for score in scores.scores}
    assert {"fresh_swaps", "zero_shot_fresh"} < names
    assert not any("unseen" in name or "further" in name for name in names)
    both = [scores[f"{split}_composition"].value for split in ("seen", "fresh")]
    assert scores["composition"].value == pytest.approx(np.mean(both))
    count = PER_CLASS * (len(NOUNS["seen"]) + len(NOUNS["fresh"]))
    assert scores["zero_shot_all"].count == count
    assert scores["zero_shot_all"].chance == pytest.approx(100 / len(NUMBER))  # among all names
    of_seen = run(words)["seen_composition"]
    assert scores["seen_composition"].value == of_seen.value
    with pytest.raises(UserError, match="no nouns 'fresher'"):
        benchmark.run(encoder, splits=("seen", "fresher"), **options)


def test_in_retrieval_every_caption_fits_one_scene_only():
    candidates = examples("seen", 4 * SCENES)
    kept = apart(candidates, SCENES)
    assert len(kept) == SCENES < len(candidates)
    true = [[holds(caption.claim, scene.scene) for scene in kept] for caption in kept]
    np.testing.assert_array_equal(true, np.eye(SCENES, dtype=bool))
    last = next(i for i, example in enumerate(candidates) if example is kept[-1])
    for one in candidates[:last]:  # none is left out without a reason
        assert any(holds(one.claim, other.scene) or holds(other.claim, one.scene) for other in kept)


def test_pictures_of_a_class_differ_and_are_the_same_again():
    pictures = [picture(7, k, SIZE, 0) for k in range(4)]
    assert len({pixels.tobytes() for pixels in pictures}) == 4
    np.testing.assert_array_equal(pictures[3], picture(7, 3, SIZE, 0))
    assert (pictures[0] != picture(7, 0, SIZE, 1)).any()
