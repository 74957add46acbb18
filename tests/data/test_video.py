"""Decoding real files, sampling as the protocol says, list files, batches of a video run."""

import itertools
import json
import sys

import jax
import numpy as np
import pytest

from data import check, sources, video
from data.moving import Moving
from data.tokenizer import train_tokenizer

av = pytest.importorskip("av")
CODECS = {"mp4": "mpeg4", "avi": "mpeg4", "mkv": "mpeg4", "webm": "libvpx"}


def grey(i):
    return 10 + 4 * i


def write(path, total=48, rate=30, size=(64, 48)):
    """A file whose frame i is of grey(i)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for i in range(total):
            pixels = np.full((size[1], size[0], 3), grey(i), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode())
    return path


def indices(frames):
    """Which frames of a file by write() these are."""
    return np.round((frames.reshape(*frames.shape[:-3], -1).mean(-1) - 10) / 4).astype(int)


@pytest.mark.parametrize("container", CODECS)
def test_frames_are_those_asked_for(tmp_path, container):
    path = write(tmp_path / f"a.{container}")
    seen = []

    def choose(total, rate):
        seen.append((total, rate))
        return np.array([[3, 40], [0, 3]])

    frames = video.read_frames(path, choose)
    assert frames.shape == (2, 2, 48, 64, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(indices(frames), [[3, 40], [0, 3]])
    assert seen == [(48, pytest.approx(30, rel=0.01))]


def test_files_that_are_no_video_are_named(tmp_path):
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"not a video" * 100)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(write(tmp_path / "whole.mp4").read_bytes()[:300])
    for path in (broken, empty, cut):
        with pytest.raises(ValueError, match=f"{path.name} is no video that can be decoded"):
            video.test_clips(str(path), size=32)


def protocol(total, fps, num_frames, views):
    """../shared/protocols.md: the frames of each view."""
    clip = 16 * num_frames / 30 * fps
    for i in range(views):
        start = i * np.floor(max(total - clip, 0) / 2)
        yield [min(int(x), total - 1) for x in np.linspace(start, start + clip - 1, num_frames)]


@pytest.mark.parametrize("total, rate", [(48, 30), (48, 10), (5, 30), (1, 30), (40, 15)])
def test_views_are_the_protocols(tmp_path, total, rate):
    path = write(tmp_path / "a.avi", total, rate)
    clips = video.test_clips(str(path), size=32)
    assert clips.shape == (3, 8, 32, 32, 3)
    np.testing.assert_array_equal(indices(clips), list(protocol(total, rate, 8, 3)))


def test_arrays_are_videos_too():
    frames = np.stack([np.full((40, 40, 3), grey(i), np.uint8) for i in range(8)])
    clips = video.test_clips(frames, size=40, frame_stride=1, views=1)
    np.testing.assert_array_equal(clips[0], frames)


def test_test_crop_is_the_centre():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 20:60] = 255
    clips = video.test_clips(frame[None], size=20, num_frames=1)
    # The filter reaches one pixel beyond the crop.
    assert (clips[..., 1:-1, :] == 255).all() and (clips > 200).all()


def test_training_clips_move_in_time_and_space_and_are_mirrored():
    ramp = np.linspace(0, 250, 80).astype(np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (100, 60, 80, 3)).copy()
    frames[..., 2] = np.arange(100)[:, None, None]
    rng = np.random.default_rng(0)
    options = dict(size=24, num_frames=4, frame_stride=5, jitter=(24, 30))
    clips = [video.train_clip(frames, rng, **options)[0] for _ in range(64)]
    starts = [int(clip[0, 0, 0, 2]) for clip in clips]
    assert min(starts) < 15 and 60 < max(starts) <= 80
    for clip in clips:
        steps = np.diff(clip[:, 0, 0, 2].astype(int))
        assert clip.shape == (4, 24, 24, 3) and ((steps >= 6) & (steps <= 7)).all()
    falls = [int(clip[0, 0, 0, 0]) > int(clip[0, 0, -1, 0]) for clip in clips]
    assert 16 < sum(falls) < 48
    # The side of the crop is 60 * 24 / jitter pixels of a ramp of 250 / 79 a pixel.
    spans = [abs(int(clip[0, 0, -1, 0]) - int(clip[0, 0, 0, 0])) for clip in clips]
    assert 135 < min(spans) < 155 and 170 < max(spans) < 185
    assert not any(
        video.train_clip(frames, rng, **options, flip=False)[0][0, 0, 0, 0] > 128 for _ in range(8)
    )


def test_templates_are_clips_28_for_kinetics():
    assert len(set(video.TEMPLATES)) == 28
    assert {"a photo of {}.", "a video of a person doing {}."} <= set(video.TEMPLATES)
    assert "a demonstration of a person practicing {}." in video.TEMPLATES


@pytest.mark.parametrize("name, counts", [("ucf101", (816, 2088, 1695)), ("hmdb", (416, 780, 750))])
def test_real_list_files_have_the_papers_counts(shared, name, counts):
    folder = shared / "data" / "froster" / f"B2N_{name}"
    found = []
    for file, split in (("train", "train"), ("val", "train"), ("test", "test")):
        rows = video.read_list(folder / f"{file}.csv")
        names, texts = video.read_classes(folder / f"{split}_rephrased.json")
        assert {label for _, label, _ in rows} == set(range(len(names)))
        assert all(row[0].endswith((".avi", ".mp4")) for row in rows)
        plain, same = video.read_classes(folder / f"raw_{split}_idx2cls.json")
        assert plain == same
        assert [n.lower() for n in names] == [n.lower() for n in plain]
        assert not any(text.startswith(n) for n, text in zip(names, texts, strict=True))
        found.append(len(rows))
    assert tuple(found) == counts


def test_labels_may_stand_behind_a_blank(shared):
    folder = shared / "data" / "froster" / "B2N_hmdb"
    commas, blanks = (video.read_list(folder / file) for file in ("train.csv", "train_1.csv"))
    assert [label for _, label, _ in commas] == [label for _, label, _ in blanks]
    assert blanks[0][0] == "Cocktail_Pouring_pour_u_nm_np2_ri_med_0.avi"


@pytest.fixture
def listed(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}, a.avi", total=9 + i)
    (tmp_path / "train.csv").write_text("0, a.avi,1\n1, a.avi,0\n2, a.avi,1\n")
    (tmp_path / "classes.json").write_text(json.dumps({"0": "run: on legs", "1": "jump: up: high"}))
    return tmp_path


def test_a_source_of_list_files(listed):
    source = sources.load("video", listed)
    assert len(source) == 3 and source.classes == ["run", "jump"]
    assert source.descriptions == ["on legs", "up: high"]
    record = source[0]
    assert record["video"].endswith("0, a.avi") and record["label"] == 1
    assert record["key"].endswith("train.csv, line 1")
    assert video.class_texts(source, "a video of {}.")[2:] == [
        "a video of jump. up: high",
        "up: high",
    ]


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("train.csv", "a.avi\n", "line 1: 'a.avi' should be path,label"),
        ("train.csv", "0, a.avi,x\n", "should be path,label"),
        ("train.csv", "", "is empty"),
        ("train.csv", "0, a.avi,2\n", "line 1: label 2, but there are 2 classes"),
        ("train.csv", "0, a.avi,0\nb.avi,1\n", "1 of 2 videos are missing, the first is .*b.avi"),
        ("train.csv", "caf\xe9.avi,0\n", "train.csv, line 1: not UTF-8"),
        ("classes.json", "{", "classes.json is not valid JSON"),
        ("classes.json", '{"0": "run", "2": "jump"}', "classes.json should be json"),
        ("classes.json", '{"0": "run", "1": 2}', "classes.json should be json"),
        ("classes.json", '["run"]', "classes.json should hold a JSON object"),
        ("classes.json", '{"0": "run"}', "line 1: label 1, but there are 1 classes"),
    ],
)
def test_bad_list_files_are_named(listed, file, content, message):
    (listed / file).write_text(content, encoding="latin-1")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sources.load("video", listed)


@pytest.mark.parametrize("file", ["train.csv", "classes.json"])
def test_missing_list_files_are_named(listed, file):
    (listed / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file}: no such file"):
        sources.load("video", listed)


def test_videos_without_pyav_say_how_to_install_it(listed, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[video\]'"):
        sources.load("video", listed)
    assert len(sources.load("moving", "")), "rendered clips need none"


def test_a_video_source_has_no_split():
    with pytest.raises(ValueError, match="'moving' has no split 'train'"):
        sources.load("moving", "", split="train")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(video.class_texts(Moving(), "a picture of {}") * 3, 600)


def batches(tokenizer, source=None, **options):
    given = dict(batch_size=4, seed=3, image_size=32, jitter=(32, 36), frame_stride=1)
    source = source or Moving(length=40)
    return video.train_batches(source, tokenizer=tokenizer, **(given | options))


def test_batches(tokenizer):
    batch = next(batches(tokenizer))
    assert batch["video"].shape == (4, 8, 32, 32, 3) and batch["video"].dtype == np.uint8
    assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
    count, texts, length = batch["class_text"].shape
    assert (count, texts) == (24, 2) and length < 24
    # No text is cut, and the longest needs all of the length.
    ends = (batch["class_text"] == tokenizer.eos_token_id).any(-1)
    assert ends.all() and not batch["truncated"].any()


def class_texts_of(tokenizer, template, length):
    tokens, _ = tokenizer.encode(video.class_texts(Moving(), template), length)
    return tokens.reshape(24, 2, length)


def test_a_reader_beside_the_student_gets_the_same_clips_and_texts_in_its_own_form(tokenizer):
    other = train_tokenizer(video.class_texts(Moving(), "a picture of {}") * 2, 540)
    readers = {
        "small": {"image_size": 16},
        "long": {"tokenizer": other, "context_length": 50, "causal": False},
    }
    for alone, batch in itertools.islice(
        zip(batches(tokenizer), batches(tokenizer, readers=readers), strict=False), 3
    ):
        assert set(batch) == {*alone, "small/video", "long/class_text"}
        for name, rows in alone.items():
            np.testing.assert_array_equal(batch[name], rows)
        halved = batch["video"].reshape(4, 8, 16, 2, 16, 2, 3).mean((3, 5))
        assert np.abs(halved - batch["small/video"]).mean() < 8
        assert np.abs(halved[:, :, :, ::-1] - batch["small/video"]).mean() > 16
        length = batch["class_text"].shape[-1]
        said = [class_texts_of(tokenizer, t, 77)[..., :length] for t in Moving().templates]
        drawn = [np.array_equal(batch["class_text"], tokens) for tokens in said].index(True)
        own = class_texts_of(other, Moving().templates[drawn], 50)
        np.testing.assert_array_equal(batch["long/class_text"], own)


def test_batches_resume_and_do_not_depend_on_workers_or_processes(tokenizer):
    whole = list(itertools.islice(batches(tokenizer), 6))
    resumed = list(itertools.islice(batches(tokenizer, start_step=4), 2))
    worked = list(itertools.islice(batches(tokenizer, workers=2), 2))
    halves = [
        list(itertools.islice(batches(tokenizer, process_index=i, process_count=2), 2))
        for i in range(2)
    ]
    joined = [
        {k: np.concatenate([a[k], b[k]]) if k != "class_text" else a[k] for k in a}
        for a, b in zip(*halves, strict=True)
    ]
    for found, expected in ((resumed, whole[4:]), (worked, whole[:2]), (joined, whole[:2])):
        for a, b in zip(found, expected, strict=True):
            for name in b:
                np.testing.assert_array_equal(a[name], b[name])
    templates = {batch["class_text"].tobytes() for batch in whole}
    assert len(templates) > 1, "another template for another step"


def test_a_video_that_cannot_be_read_stops_with_its_row(listed, tokenizer):
    (listed / "1, a.avi").write_bytes(b"x" * 99)
    source = sources.load("video", listed)
    with pytest.raises(ValueError, match=r"train.csv, line 2: .*1, a.avi is no video"):
        list(itertools.islice(batches(tokenizer, source, batch_size=3), 1))


def test_videos_shorter_than_a_clip_are_counted_and_repeat_their_last_frame(listed, tokenizer):
    options = dict(batch_size=3, num_frames=5, frame_stride=2)  # ten frames of files of 9, 10, 11
    batch = next(batches(tokenizer, sources.load("video", listed), **options))
    assert sorted(batch["short"]) == [False, False, True]
    clip, short = video.train_clip(
        str(listed / "0, a.avi"), np.random.default_rng(0), size=32, num_frames=4, frame_stride=5
    )
    assert short and list(indices(clip)) == [0, 6, 8, 8]


def test_faulty_videos_are_all_named(listed):
    jax.devices()  # a fork of jax's threads would warn
    (listed / "1, a.avi").write_bytes(b"x" * 99)
    said = list(check.faults(sources.load("video", listed), seconds=10 / 30, workers=2))
    assert len(said) == 2
    assert "train.csv, line 1: " in said[0] and "0, a.avi lasts 0.30 s, less than a clip" in said[0]
    assert "train.csv, line 2: " in said[1] and "1, a.avi is no video" in said[1]


def test_class_texts_that_do_not_fit_are_counted(tokenizer):
    assert next(batches(tokenizer, context_length=6))["truncated"].all()
