"""The embedded clips: deterministic, split by class, and twins that differ in order alone."""

import numpy as np
import pytest

from data.glyphs import NOUNS
from data.moving import PAIRS, Moving


def test_clips_are_functions_of_their_index():
    one, other = Moving(length=20), Moving(length=500)
    for i in (0, 7, 19):
        a, b = one[i], other[i]
        assert a["label"] == b["label"] and a["key"] == b["key"]
        np.testing.assert_array_equal(a["video"], b["video"])
    assert one[0]["video"].shape == (8, 48, 48, 3) and one[0]["video"].dtype == np.uint8
    test = Moving(part="test")
    assert all((test[i]["video"] != other[i]["video"]).any() for i in range(20))


def test_base_and_novel_classes_share_actions_and_no_thing():
    seen, unseen = (Moving(nouns=nouns) for nouns in ("seen", "unseen"))
    for source, split in ((seen, "seen"), (unseen, "unseen")):
        words = [name.split() for name in source.classes]
        assert {thing for _, thing, _ in words} <= set(NOUNS[split])
        assert {action for *_, action in words} == {action for pair in PAIRS for action in pair}
        assert len(set(source.classes)) == len(source.classes) == len(source.descriptions) == 24
    assert not set(seen.classes) & set(unseen.classes)


def test_every_thing_of_a_split_can_be_asked_for():
    names = Moving(nouns="unseen", things=len(NOUNS["unseen"])).classes
    assert len(set(names)) == 2 * len(NOUNS["unseen"])
    with pytest.raises(ValueError, match=r"things is 1000, but \d+ are unseen"):
        Moving(nouns="unseen", things=1000)


def test_twins_are_the_same_frames_in_another_order():
    source = Moving()
    for label, (thing, action) in enumerate(source._class_list):
        twin = source._class_list[source.twins[label]]
        assert twin[0] == thing and {action, twin[1]} in map(set, PAIRS)
        clips = [
            source._render(thing, name, np.random.default_rng(label)) for name in (action, twin[1])
        ]
        frames = [sorted(frame.tobytes() for frame in clip) for clip in clips]
        assert frames[0] == frames[1]
        assert len(set(frames[0])) == 2, "and they do move"
        assert any((a != b).any() for a, b in zip(*clips, strict=True))


def test_every_class_occurs_and_none_is_favoured():
    labels = [Moving()[i]["label"] for i in range(480)]
    counts = np.bincount(labels, minlength=24)
    assert counts.min() > 5 and counts.max() < 40


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="moving has no part 'dev'"):
        Moving(part="dev")
    with pytest.raises(ValueError, match="num_frames is 2, must be >= 4"):
        Moving(num_frames=2)
    with pytest.raises(ValueError, match="num_frames is 7, must be even"):
        Moving(num_frames=7)
