"""Stills of the embedded clips: frames that show the thing, with captions that are true of them."""

import numpy as np

from data import stills
from data.moving import PAIRS, Moving


def test_a_still_is_a_frame_of_a_clip_that_its_captions_tell():
    source = stills.load(nouns="unseen", things=30, length=60)
    clips = Moving(nouns="unseen", things=30, length=60)
    for i in range(len(source)):
        record, clip = source[i], clips[i]
        frames = {frame.tobytes() for frame in clip["video"]}
        assert record["image"].tobytes() in frames and len(frames) == 2
        label = clip["label"]
        told = (clips.descriptions[label], clips.classes[label], clips.classes[label ^ 1])
        assert len(record["captions"]) == 3
        assert all(map(str.endswith, record["captions"], told))


def test_every_still_shows_its_thing():
    source, clips = stills.load(length=60), Moving(length=60)
    hidden = [pair for pair, what in PAIRS.items() if what in ("tile", "glyph")]
    hidden = {action for pair in hidden for action in pair}
    looked_at = 0
    for i in range(len(source)):
        if not hidden & set(clips.classes[clips[i]["label"]].split()):
            continue
        # A pose with the thing has more edges than the one without.
        edges = [int(np.abs(np.diff(f.astype(int), axis=1)).sum()) for f in clips[i]["video"]]
        assert int(np.abs(np.diff(source[i]["image"].astype(int), axis=1)).sum()) == max(edges)
        looked_at += 1
    assert looked_at > 10
