"""A video file: its film among its streams, and the frames of it, upright."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from errors import UserError
from paths import readable

_LEAST_WHOLE = 0.9  # of what a header promises, or the file is cut short


def pyav():
    """The module av, an extra that only video files need.

    Raises:
      UserError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"video files need PyAV ({error}): pip install -e '.[video]'") from None
    return av


class Film:
    """An open video file.

    Attributes:
      total: frames, as the file says; at least 1.
      rate: frames a second, or None where the file does not say.

    Raises:
      UserError: it is no video, or holds no film; names it.
    """

    def __init__(self, path: str):
        self._path = path
        with self._named(), contextlib.ExitStack() as stack:
            self._container = stack.enter_context(pyav().open(readable(path)))
            self._stream = self._film()
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.rate = float(rate) if rate else None
            self.total = self._stream.frames or self._count()
            if not self.total:
                raise ValueError("it has no frames")
            self.close = stack.pop_all().close

    def pick(self, wanted: np.ndarray, crop: Callable) -> dict[int, np.ndarray]:
        """Frames by their index, each as crop returns it.

        A header may promise a few more frames than there are: the last stands for them.

        Raises:
          UserError: it cannot be decoded, is cut short or changes its size; names it.
        """
        indices, last, picked, count = set(wanted.flat), int(wanted.max()), {}, 0
        frame = None
        for count, frame in enumerate(self._frames(), 1):
            if count - 1 in indices:
                picked[count - 1] = crop(self._upright(frame))
            if count > last:
                return picked
        with self._named():
            if frame is None:
                raise ValueError("it has no frames")
            if count < _LEAST_WHOLE * self.total:
                raise ValueError(
                    f"only {count} of its {self.total} frames are there: it is cut short"
                )
        end = crop(self._upright(frame))
        return {i: picked.get(i, end) for i in indices}

    def _frames(self) -> Iterator:
        """The frames as they are decoded, of one size."""
        first = None
        with self._named():
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    raise ValueError("a part of it is damaged or cut short")
                for frame in packet.decode():
                    size = frame.width, frame.height
                    first = first or size
                    if size != first:
                        raise ValueError(
                            "its frames change their size, from {} x {} to {} x {} pixels; "
                            "re-encode it with one size".format(*first, *size)
                        )
                    if frame.is_corrupt:
                        raise ValueError("a frame of it is damaged")
                    yield frame

    def _film(self):
        """The stream that is the film: not an album's cover, not a track of thumbnails."""
        flags = pyav().stream.Disposition
        other = flags.attached_pic | flags.timed_thumbnails | flags.still_image
        streams = self._container.streams
        films = [stream for stream in streams.video if not stream.disposition & other]
        if not films:
            kinds = ["a picture" if s.type == "video" else s.type for s in streams] or ["nothing"]
            raise ValueError(f"it has no film, only {' and '.join(kinds)}")
        best = streams.best("video")
        film = best if best in films else films[0]
        if film.width * film.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise ValueError(
                f"its frames of {film.width} x {film.height} pixels are more than "
                f"{Image.MAX_IMAGE_PIXELS:,}, the limit for decompression bombs"
            )
        return film

    def _count(self) -> int:
        """Frames of a container that does not say, such as Matroska.

        Raises:
          ValueError: the file ends long before it says.
        """
        total, end = 0, 0
        for packet in self._container.demux():
            total += packet.stream is self._stream and packet.size > 0
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        unit = pyav().time_base
        duration, start = self._container.duration, self._container.start_time or 0
        if duration and float(end) - start / unit < _LEAST_WHOLE * duration / unit:
            raise ValueError(
                f"it ends after {float(end):.2f} of its {duration / unit:.2f} s: it is cut short"
            )
        self._container.seek(0)
        return total

    def _upright(self, frame) -> np.ndarray:
        """A frame as it is to be seen, uint8 [H, W, 3]: phones store it as the sensor lies."""
        with self._named():
            pixels = frame.to_ndarray(format="rgb24")
            matrices = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
            if not matrices:
                return pixels
            # x' = a x + c y, y' = b x + d y
            (a, b), (c, d) = np.frombuffer(bytes(matrices[0]), np.int32).reshape(3, 3)[:2, :2]
            if a and d and not b and not c:
                return np.ascontiguousarray(pixels[:: np.sign(d), :: np.sign(a)])
            if b and c and not a and not d:
                return np.ascontiguousarray(pixels.swapaxes(0, 1)[:: np.sign(b), :: np.sign(c)])
            raise ValueError(
                f"its frames are to be turned by {frame.rotation} degrees, no quarter of a circle"
            )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Whatever libav raises becomes one line that names the file."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            raise UserError(f"{self._path} is no video that can be decoded: {reason}") from None
