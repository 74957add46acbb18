"""Scores of videos against the protocol worked out by hand."""

import numpy as np
import pytest

from benchmarks import video as benchmark
from benchmarks.items import Item
from benchmarks.scorers import choice
from data.moving import Moving
from data.video import TEMPLATES, class_texts
from encoders import honest
from intervals import resolve
from tests.benchmarks.toy import Table


def value(aggregate, values):
    """An aggregate of given figures of subsets."""
    names, function, _ = resolve(aggregate, dict.fromkeys(values, 1))
    return function(*(values[name] for name in names))


class Source:
    """Three classes, four videos whose 'file' says which frames' embeddings it has."""

    classes, descriptions, templates = ["run", "jump", "sit"], ["a", "b", "c"], TEMPLATES
    labels = [0, 1, 2, 1]

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {"video": f"{i}.mp4", "label": self.labels[i], "key": str(i)}


class Fake:
    """Class c's texts lie about axis c; a video has [V, T, D] frames given by hand."""

    def __init__(self, frames):
        self.frames, self.asked, self.read = frames, [], []

    def texts(self, texts):
        self.asked = [text for phrasings in texts for text in phrasings]
        rows = [self._one(phrasings) for phrasings in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows])

    def _one(self, texts):
        source = Source()
        # Every text names its class or is its description.
        rows = [
            next(
                i
                for i, (name, text) in enumerate(
                    zip(source.classes, source.descriptions, strict=True)
                )
                if f" {name}. " in f"{t} " or t == text
            )
            for t in texts
        ]
        return np.eye(3, dtype=np.float32)[rows].mean(axis=0)

    def videos(self, items, views, num_frames, frame_stride):
        self.read = list(items)
        assert (views, num_frames, frame_stride) == (3, 8, 16)
        return np.stack([self.frames[item] for item in items])


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(benchmark.sources, "load", lambda source, root, **options: Source())
    rng = np.random.default_rng(0)
    frames = {f"{i}.mp4": rng.random((3, 8, 3)).astype(np.float32) for i in range(4)}
    return Fake(frames)


def by_hand(frames):
    """Video by video and class by class: mean over frames, sum over views."""
    return np.array(
        [
            [sum(np.mean(view[:, c]) for view in frames[f"{i}.mp4"]) for c in range(3)]
            for i in range(4)
        ]
    )


def test_top_k_and_the_harmonic_mean(fake):
    scores = benchmark.run(fake, sets={"base": {}, "novel": {}})
    expected = by_hand(fake.frames)
    order = np.argsort(-expected, axis=1)
    top1 = 100 * np.mean(order[:, 0] == Source.labels)
    assert scores["base_top1"].value == pytest.approx(top1)
    assert scores["novel_top5"].value == 100
    assert scores["harmonic_mean"].value == pytest.approx(top1)
    assert len(fake.asked) == 29 * 3 and len(set(fake.asked)) == 29 * 3


def test_class_texts_are_those_of_training(fake):
    benchmark.run(fake, sets={"base": {}})
    for template in TEMPLATES:
        assert set(class_texts(Source(), template)) <= set(fake.asked)


def test_a_tie_is_wrong(fake):
    fake.frames = {name: np.ones((3, 8, 3), np.float32) for name in fake.frames}
    scores = benchmark.run(fake, sets={"base": {}})
    assert scores["base_top1"].value == 0 and scores["base_top1"].ties == 4


def test_harmonic_mean_and_spread_over_splits():
    made = benchmark.aggregates({"base": {}, "novel": {}, "ucf/1": {}, "ucf/2": {}, "ucf/3": {}})
    # FROSTER's K400, HMDB-51, UCF-101 and SSv2 (../shared/protocols.md).
    for b, n, h in ((77.8, 64.3, 70.4), (74.1, 58.0, 65.1), (95.3, 80.0, 87.0), (18.3, 12.2, 14.6)):
        found = value(made["harmonic_mean"], {"base_top1": b, "novel_top1": n})
        assert found == pytest.approx(h, abs=0.06)
    zero = value(made["harmonic_mean"], {"base_top1": 0.0, "novel_top1": 0.0})
    assert zero == 0
    values = {f"ucf/{i}_top1": v for i, v in ((1, 80.0), (2, 83.0), (3, 86.0))}
    assert value(made["ucf_mean"], values) == pytest.approx(83)
    assert value(made["ucf_std"], values) == pytest.approx(3)


def test_twins_are_scored_as_pairs():
    class Blind:
        def texts(self, texts):
            rng = np.random.default_rng(0)
            return rng.normal(size=(len(texts), 16)).astype(np.float32)

        def videos(self, items, **sampling):
            frames = np.stack([np.sort(v.reshape(8, -1).mean(1)) for v in items])
            return np.repeat(frames[:, None, :, None], 16, axis=3).astype(np.float32)

    sets = {"base": dict(nouns="seen", part="test", length=100)}
    scores = benchmark.run(Blind(), sets=sets, source="moving", views=1, frame_stride=1)
    assert 20 < scores["base_pairs"].value < 80
    assert len(Moving(**sets["base"])) == scores["base_pairs"].count


def test_twins_are_asked_for_their_pair_and_for_their_thing():
    texts = tuple((name,) for name in "abcd")
    items = [Item("s", str(i), [f"{i}"], texts, label) for i, label in enumerate((0, 0, 2, 1))]
    table = np.array([[5, 3, 1, 2], [3, 5, 1, 2], [1, 2, 5, 5], [4, 4, 4, 0.0]])
    vectors = {str(i): row for i, row in enumerate(table)} | dict(
        zip(texts, np.eye(4), strict=True)
    )
    found = choice(Table(vectors), list(benchmark.twin_items(items, [1, 0, 3, 2])))
    pairs, things = found["s_pairs"], found["s_things"]
    assert (pairs.right.tolist(), pairs.tied.tolist()) == ([1, 0, 0, 0], [0, 0, 1, 1])
    assert (things.right.tolist(), things.tied.tolist()) == ([1, 1, 1, 0], [0, 0, 0, 1])
    assert (pairs.chance.tolist(), things.chance.tolist()) == ([0.5] * 4, [0.5] * 4)


def test_no_sets_is_an_error():
    with pytest.raises(ValueError, match="no sets of videos"):
        benchmark.run(None, sets={})


@pytest.mark.parametrize("name", honest.ENCODERS)
def test_honest_encoders(name):
    clips = dict(part="test", length=72, size=32)
    sets = {"base": dict(clips, nouns="seen"), "novel": dict(clips, nouns="unseen")}

    def scores(encoder):
        made = benchmark.run(encoder, sets=sets, source="moving", views=1, frame_stride=1)
        return [s for s in made.scores if s.name != "harmonic_mean"]

    found = scores(honest.ENCODERS[name]())
    if name == "oracle":
        assert {s.value for s in found} == {100} and not any(s.ties for s in found)
    if name == "constant":
        assert all(s.ties == s.count and s.strict == 0 for s in found)
        # The first of the best is not the right one more often than by guessing.
        assert all(s.argmax == pytest.approx(s.chance, abs=15) for s in found)
    if name == "random":
        runs = [scores(honest.Random(seed)) for seed in range(20)]
        assert np.mean([s.low <= s.chance <= s.high for run in runs for s in run]) > 0.9
