"""Which stream is the film, which side is up, and files that are torn."""

import fractions
import io

import numpy as np
import pytest
from PIL import Image

from data import check, video
from errors import UserError
from tests.data.test_video import CODECS, write

av = pytest.importorskip("av")
MORE_CODECS = CODECS | {"mov": "h264", "ts": "h264", "flv": "flv", "mpg": "mpeg1video"}
Disposition = av.stream.Disposition


def everything(total, rate):
    return np.arange(total)


def mux(container, stream, frames):
    for pixels in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())


def add_sound(container, seconds=1):
    """A silent track; returns what fills it, once all tracks are there."""
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 8000 * seconds), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 8000

    def fill():
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    return fill


def add_film(container, codec="mpeg4", size=(64, 48), pixels="yuv420p"):
    stream = container.add_stream(codec, rate=30)
    stream.width, stream.height, stream.pix_fmt = *size, pixels
    stream.bit_rate = 4_000_000
    return stream


def add_cover(container):
    stream = add_film(container, "mjpeg", (320, 240), "yuvj420p")
    stream.disposition = Disposition.attached_pic
    return stream


COVER = [np.full((240, 320, 3), 255, np.uint8)]


def quarters():
    """A frame whose quarters are of different grey."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32], frame[:24, 32:], frame[24:, :32], frame[24:, 32:] = 40, 100, 160, 220
    return frame


def corners(frame):
    y, x = np.array(frame.shape[:2]) // 4
    return [int(frame[i, j].mean() // 60) for i in (y, -y) for j in (x, -x)]


def test_a_phones_film_is_upright(shared):
    folder = shared / "data/cases/videos"
    plain, turned = (
        video.read_frames(folder / f"{name}.mp4", everything) for name in ("plain", "rot90")
    )
    np.testing.assert_array_equal(turned, np.rot90(plain, -1, (1, 2)))


@pytest.mark.parametrize(
    "turn",
    [lambda x: x, lambda x: np.rot90(x, 1), lambda x: np.rot90(x, 2), lambda x: x.T[..., None]],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_display_matrix_is_followed(turn, mirrored, tmp_path):
    """The matrix sends pixel (x, y) of the coded frame to (a x + c y, b x + d y)."""
    grid = np.arange(4).reshape(2, 2)
    seen = np.squeeze(turn(grid))
    seen = seen[:, ::-1] if mirrored else seen

    def place(number):  # of a quarter in the frame that is to be seen, as -1 or 1
        y, x = np.argwhere(seen == number)[0]
        return np.array([2 * x - 1, 2 * y - 1])

    right, down = (place(1) - place(0)) // 2, (place(2) - place(0)) // 2
    matrix = np.zeros((3, 3), np.int32)
    matrix[0, :2], matrix[1, :2], matrix[2, 2] = right * 65536, down * 65536, 1 << 30
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = add_film(container)
        stream.set_display_matrix(matrix.ravel().tolist())
        mux(container, stream, [quarters()] * 3)
    frames = video.read_frames(path, everything)
    assert corners(frames[0]) == seen.ravel().tolist()
    clip = video.test_clips(str(path), size=32, num_frames=2, views=1)[0]
    assert corners(clip[0]) == seen.ravel().tolist()


def test_a_slanted_film_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = add_film(container)
        stream.set_display_rotation(30)
        mux(container, stream, [quarters()] * 3)
    with pytest.raises(
        UserError, match="a.mp4 is no video .*turned by -?(29|30) degrees, no quarter"
    ):
        video.read_frames(path, everything)


@pytest.mark.parametrize("order", ["cover, film", "film, cover", "attachment"])
def test_cover_art_is_not_the_film(order, tmp_path):
    path = tmp_path / ("a.mkv" if order == "attachment" else "a.mp4")
    with av.open(str(path), "w") as container:
        if order == "attachment":
            stream = io.BytesIO()
            Image.fromarray(COVER[0]).save(stream, "JPEG")
            container.add_attachment("cover.jpg", "image/jpeg", stream.getvalue())
        art = add_cover(container) if order == "cover, film" else None
        film = add_film(container)
        art = add_cover(container) if order == "film, cover" else art
        if art:
            mux(container, art, COVER)
        mux(container, film, [quarters()] * 8)
    frames = video.read_frames(path, everything)
    assert frames.shape == (8, 48, 64, 3) and corners(frames[3]) == [0, 1, 2, 3]


@pytest.mark.parametrize("with_cover", [False, True])
def test_sound_alone_is_no_film(with_cover, tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = add_sound(container)
        if with_cover:
            mux(container, add_cover(container), COVER)
        sound()
    message = "a.mp4 is no video .*: it has no film, only audio"
    for load in (video.read_frames, lambda path, _: video.test_clips(str(path), size=32)):
        with pytest.raises(UserError, match=message + (" and a picture" if with_cover else "$")):
            load(path, everything)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("frames", [8, 60])
def test_a_film_shorter_or_longer_than_its_sound_is_whole(kind, frames, tmp_path):
    path = tmp_path / f"a.{kind}"
    with av.open(str(path), "w") as container:
        film, sound = add_film(container), add_sound(container)
        mux(container, film, [quarters()] * frames)
        sound()
    assert len(video.read_frames(path, everything)) == frames


def changing(path, at=10):
    """A film whose frames are smaller from there on."""

    def jpeg(size):
        stream = io.BytesIO()
        Image.new("RGB", size, (90, 90, 90)).save(stream, "JPEG")
        return stream.getvalue()

    with av.open(str(path), "w") as container:
        stream = add_film(container, "mjpeg", pixels="yuvj420p")
        for i in range(20):
            packet = av.Packet(jpeg((64, 48) if i < at else (48, 64)))
            packet.stream, packet.pts, packet.dts = stream, i, i
            packet.time_base = fractions.Fraction(1, 30)
            container.mux(packet)
    return path


def test_a_size_that_changes_midway_is_refused(tmp_path):
    path = changing(tmp_path / "a.avi")
    message = "a.avi is no video .*: its frames change their size, from 64 x 48 to 48 x 64 pixels"
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            video.read_frames(path, everything)
    assert len(video.read_frames(path, lambda total, rate: np.arange(8))) == 8, "before it does"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv", "webm", "mov", "flv"])
def test_the_rest_of_a_torn_film_is_not_made_up(kind, share, tmp_path):
    path = tmp_path / f"a.{kind}"
    options = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = add_film(container, MORE_CODECS[kind])
        rng = np.random.default_rng(0)
        mux(container, stream, rng.integers(0, 256, (48, 48, 64, 3), np.uint8))
    assert len(video.read_frames(path, everything)) == 48
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"a.{kind} is no video that can be decoded: .*"):
        video.read_frames(path, everything)


@pytest.mark.parametrize("kind", MORE_CODECS)
def test_whole_films_are_read_whatever_holds_them(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(CODECS, kind, MORE_CODECS[kind])
    path = write(tmp_path / f"a.{kind}")
    assert len(video.read_frames(path, everything)) in (47, 48)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_arrays_that_are_no_video_are_refused(frames):
    with pytest.raises(UserError, match="are no video: give uint8"):
        video.read_frames(frames, everything)


def test_what_stops_training_is_known_beforehand(tmp_path):
    """Every fault of a film that a clip can meet is one that data.check names."""
    changing(tmp_path / "size.avi")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        add_sound(container)()
    (tmp_path / "empty.mp4").touch()
    for path in tmp_path.iterdir():
        record = {"video": str(path), "label": 0, "key": f"list, {path.name}"}
        (said,) = [check.fault(record, seconds=0.1)]
        assert said.startswith(f"list, {path.name}: {path} is no video"), said
