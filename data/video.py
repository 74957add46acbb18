"""Videos: list files, decoding, clips for training and testing, and the batches of a video run.

A source of videos has `len` and `[i]`; a record is
  video: path of a file, or uint8 [T, H, W, 3] frames at TARGET_FPS,
  label: int, the class,
  key: where the record comes from (file and row), for error messages;
and it has `classes`, `descriptions` (a text a class each), `templates` ("... {} ...") and
`pipeline`, which is "video".
"""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from data import film
from data.packing import Shapes
from data.pipeline import arranged, sampled_batches
from data.readers import CONTEXT_LENGTH, Reader, everyone
from errors import MissingFileError, UserError
from files import lines, read_object, read_text
from paths import as_path, missing_files

TARGET_FPS = 30
_VERBS = ("", "using ", "doing ", "during ", "performing ", "practicing ")
# CLIP's 28 templates for Kinetics (github.com/openai/CLIP, data/prompts.md), FROSTER's too.
TEMPLATES = tuple(
    f"a {medium} of {subject}{{}}."
    for medium in ("photo", "video", "example", "demonstration")
    for subject in ("", *(f"a person {verb}" for verb in _VERBS))
)


class Videos:
    """The videos of list files, whose files have been seen to exist, and their classes.

    Args:
      rows: (path, label, key) of each.
      classes, descriptions: texts by label.
    """

    pipeline = "video"
    templates = TEMPLATES

    def __init__(self, rows, classes: Sequence[str], descriptions: Sequence[str]):
        film.pyav()  # asked before anything is compiled
        self.classes, self.descriptions = list(classes), list(descriptions)
        self._rows = list(rows)
        for _, label, key in self._rows:
            if not 0 <= label < len(self.classes):
                raise UserError(f"{key}: label {label}, but there are {len(self.classes)} classes")
        absent = missing_files({str(path) for path, _, _ in self._rows})
        missing = [(path, key) for path, _, key in self._rows if str(path) in absent]
        if missing:
            path, key = missing[0]
            raise MissingFileError(
                f"{len(missing)} of {len(self._rows)} videos are missing, the first is {path} "
                f"({key}): is the folder of videos right?"
            )

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        path, label, key = self._rows[index]
        return {"video": str(path), "label": label, "key": key}


def load(root: str, annotations="train.csv", videos=".", classes="classes.json") -> Videos:
    """A list file with its classes, as FROSTER publishes them.

    Args:
      root: folder that the other paths start from.
      annotations: see read_list(); the paths below `videos`.
      classes: see read_classes().

    Raises:
      UserError: a file that is not what it should be; names the row.
      MissingFileError: a file or videos that are not there.
    """
    names, descriptions = read_classes(as_path(root, classes))
    rows = read_list(as_path(root, annotations))
    rows = ((as_path(root, videos, path), label, key) for path, label, key in rows)
    return Videos(rows, names, descriptions)


def read_list(path: Path) -> list[tuple[str, int, str]]:
    """(path, label, key) of each row of a list file, `path,label` or `path label` a line.

    Raises:
      UserError: an empty file or a row that is no such line.
    """
    rows = []
    for number, line in enumerate(lines(read_text(path)), 1):
        # A path may hold commas and blanks; a label does not.
        match = re.fullmatch(r"\s*(.*\S)\s*[,\s]\s*(\d+)\s*", line)
        if not match:
            raise UserError(f"{path}, line {number}: {line!r} should be path,label")
        rows.append((match[1], int(match[2]), f"{path}, line {number}"))
    if not rows:
        raise UserError(f"{path} is empty: it should have a line path,label for each video")
    return rows


def read_classes(path: Path) -> tuple[list[str], list[str]]:
    """Names and descriptions by label, of json {"0": "Name: description", ...}.

    A class without a description is described by its name.

    Raises:
      UserError: it is no such json.
    """
    content = read_object(path)
    texts = [content.get(str(label)) for label in range(len(content))]
    for label, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(
                f'{path} should be json {{"0": "name: description", "1": ..}}, a text for each '
                f'of its {len(texts)} classes, and its "{label}" is {text!r}'
            )
    pairs = [text.partition(": ") for text in texts]
    return [name for name, _, _ in pairs], [text or name for name, _, text in pairs]


def read_frames(
    video, choose: Callable[[int, float], np.ndarray], crop: Callable = lambda frame: frame
) -> np.ndarray:
    """Decodes some frames of a video, upright.

    Args:
      video: path, or uint8 [T, H, W, 3] frames.
      choose: (number of frames, frames a second) -> int array of indices, of any shape S.
      crop: of a frame [H, W, 3], applied to each at once, so that no whole frames are kept.

    Returns:
      uint8 [*S, H, W, 3].

    Raises:
      UserError: it cannot be decoded, is cut short, changes its size or has no frames; names it.
    """
    if isinstance(video, np.ndarray):
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or not video.size:
            raise UserError(
                f"frames of {video.dtype} {video.shape} are no video: give uint8 [T, H, W, 3]"
            )
        wanted = choose(len(video), TARGET_FPS)
        picked = {i: crop(video[i]) for i in np.unique(wanted)}
    else:
        with contextlib.closing(film.Film(str(video))) as opened:
            wanted = choose(opened.total, opened.rate or TARGET_FPS)
            picked = opened.pick(wanted, crop)
    frames = np.stack([picked[i] for i in wanted.flat])
    return frames.reshape(*wanted.shape, *frames.shape[1:])


def clip_indices(total: int, start: float, length: float, num_frames: int) -> np.ndarray:
    """num_frames frames evenly spaced in [start, start + length), beyond the end the last again.

    Source: PySlowFast's temporal_sampling, which FROSTER's code has.
    """
    return np.clip(np.linspace(start, start + length - 1, num_frames), 0, total - 1).astype(int)


def train_clip(video, rng: np.random.Generator, *, size: int, **how) -> tuple[np.ndarray, bool]:
    """A clip at a random time, its short side scaled to a length in jitter, cropped, flipped.

    Args:
      how: num_frames, frame_stride, jitter, flip, see train_clips().

    Returns:
      uint8 [num_frames, size, size, 3], and whether the video is shorter than that.
    """
    clips, short = train_clips(video, rng, [size], **how)
    return clips[size], short


def train_clips(
    video,
    rng: np.random.Generator,
    sizes: Sequence[int],
    *,
    num_frames: int = 8,
    frame_stride: int = 16,
    jitter: Sequence[int] = (224, 256),
    flip: bool = True,
) -> tuple[dict[int, np.ndarray], bool]:
    """The clip of train_clip() in several sizes, the same part of the same frames.

    Args:
      sizes: pixels; jitter is of the first.
      frame_stride: frames between the clip's, at TARGET_FPS.
    """
    short = False

    def choose(total, rate):
        nonlocal short
        length = num_frames * frame_stride * rate / TARGET_FPS
        short = total < length
        start = rng.random() * max(total - length, 0)
        return clip_indices(total, start, length, num_frames)

    box = None

    def crop(frame):
        nonlocal box
        if box is None:  # drawn once, when the size is known
            height, width = frame.shape[:2]
            side = sizes[0] / rng.integers(jitter[0], jitter[1] + 1) * min(height, width)
            left, top = rng.random() * (width - side), rng.random() * (height - side)
            box = left, top, left + side, top + side
        return np.concatenate([_cropped(frame, box, size).ravel() for size in sizes])

    pixels = read_frames(video, choose, crop)
    step = -1 if flip and rng.random() < 0.5 else 1
    clips, start = {}, 0
    for size in sizes:
        own = pixels[:, start : start + 3 * size**2].reshape(-1, size, size, 3)
        clips[size], start = own[:, :, ::step], start + 3 * size**2
    return clips, short


def test_clips(
    video, *, size: int, num_frames: int = 8, frame_stride: int = 16, views: int = 3
) -> np.ndarray:
    """Clips at evenly spaced times, their centres: uint8 [views, num_frames, size, size, 3]."""

    def choose(total, rate):
        length = num_frames * frame_stride * rate / TARGET_FPS
        apart = np.floor(max(total - length, 0) / max(views - 1, 1))
        starts = apart * np.arange(views)
        return np.stack([clip_indices(total, start, length, num_frames) for start in starts])

    def crop(frame):
        height, width = frame.shape[:2]
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return _cropped(frame, (left, top, left + side, top + side), size)

    return read_frames(video, choose, crop)


def _cropped(frame: np.ndarray, box, size: int) -> np.ndarray:
    """The box (left, top, right, bottom) of a frame [H, W, 3], scaled to [size, size, 3]."""
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(frame).resize((size, size), bilinear, box))


def class_texts(source, template: str) -> list[str]:
    """Two texts a class: the template with its name, then its description; the description."""
    pairs = zip(source.classes, source.descriptions, strict=True)
    return [t for name, text in pairs for t in (f"{template.format(name)} {text}", text)]


def class_ensembles(source) -> tuple[tuple[str, ...], ...]:
    """For each class its texts by every template, and the description alone, which counts once."""
    by_template = [class_texts(source, template) for template in source.templates]
    return tuple(zip(*(texts[::2] for texts in by_template), by_template[0][1::2], strict=True))


def train_batches(
    source,
    *,
    tokenizer,
    batch_size: int,
    seed: int,
    image_size: int,
    context_length: int = CONTEXT_LENGTH,
    causal: bool = True,
    num_frames: int = 8,
    frame_stride: int = 16,
    jitter: Sequence[int] = (224, 256),
    flip: bool = True,
    readers: Mapping[str, Mapping] = MappingProxyType({}),
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process's rows of the global batches from start_step on, without end.

    A batch, for N = batch_size / process_count and C classes, holds
      video uint8 [N, num_frames, image_size, image_size, 3]; label int32 [N];
      class_text int32 [C, 2, L], for all processes alike: each class by one template, drawn anew
    for each step, with its description, and the description alone (FROSTER, section 4.1);
      truncated bool [N], whether any of these texts was cut to fit the context; short bool [N],
    whether the video is shorter than a clip, whose last frame then repeats;
      and for each of the readers, with its name and a slash in front of theirs, video and
    class_text where they are its own, of the same clips and the same template.

    Args:
      source: records, see above.
      num_frames, frame_stride, jitter, flip: see train_clip().
      readers: see data/pipeline.py.
      causal: whether the text tower is CLIP's: padding that all texts share is cut.
      start_step, workers, process_index, process_count: see data/pipeline.py.

    Raises:
      UserError: batch_size too large or not divisible; from the iterator, a video that cannot be
        decoded.
    """
    reading = everyone(Reader(tokenizer, context_length, causal, image_size), readers)
    sizes = {prefix: r.image_size for prefix, r in reading.items() if r.image_size is not None}
    sample = _Clip(sizes, num_frames, frame_stride, tuple(jitter), flip)
    dataset = sampled_batches(
        source,
        sample,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        workers=workers,
        process_index=process_index,
        process_count=process_count,
    )
    texts = {p: _class_tokens(source, r) for p, r in reading.items() if r.tokenizer is not None}
    truncated = any(truncated for _, truncated in texts.values())
    steps = itertools.count(start_step)

    def with_texts(batch):
        rng = np.random.default_rng((seed, next(steps)))
        template = rng.integers(len(source.templates))
        drawn = {f"{prefix}class_text": tokens[template] for prefix, (tokens, _) in texts.items()}
        return batch | drawn | {"truncated": np.full(len(batch["label"]), truncated)}

    return arranged(dataset, with_texts)


def _class_tokens(source, reader: Reader) -> tuple[np.ndarray, bool]:
    """int32 [templates, C, 2, L] of class_texts(), and whether any was cut to fit."""
    encoded = [
        reader.tokenizer.encode(class_texts(source, template), reader.context_length)
        for template in source.templates
    ]
    tokens = np.stack([tokens for tokens, _ in encoded])
    if reader.causal:
        tokens = tokens[..., : 1 + int(tokens.any(axis=(0, 1)).nonzero()[0][-1])]
    tokens = tokens.reshape(len(tokens), len(source.classes), 2, -1)
    return tokens, any(truncated.any() for _, truncated in encoded)


def batch_shapes(
    source,
    *,
    tokenizer,
    batch_size: int,
    image_size: int,
    context_length: int = CONTEXT_LENGTH,
    causal: bool = True,
    num_frames: int = 8,
    readers: Mapping[str, Mapping] = MappingProxyType({}),
) -> dict[str, Shapes]:
    """The global batches of train_batches(), which are all of one shape, see data/pipeline.py.

    Args:
      source: with classes, descriptions and templates.
    """
    reading = everyone(Reader(tokenizer, context_length, causal, image_size), readers)
    shapes = {"label": ((batch_size,), np.int32)}
    for prefix, reader in reading.items():
        if (size := reader.image_size) is not None:
            shapes[f"{prefix}video"] = ((batch_size, num_frames, size, size, 3), np.uint8)
        if reader.tokenizer is not None:
            tokens, _ = _class_tokens(source, reader)
            shapes[f"{prefix}class_text"] = (tokens.shape[1:], np.int32)
    length = shapes["class_text"][0][-1]
    return {f"{len(source.classes)} classes of {length} tokens": shapes}


def batch_fields(num_negatives: int = 0, texts=()) -> tuple[str, ...]:
    """What a batch holds for the devices, whatever else a method asks for."""
    return ("video", "label", "class_text")


@dataclasses.dataclass(frozen=True)
class _Clip:
    """Makes a training sample of a record; pickled to the worker processes."""

    sizes: Mapping[str, int]  # by what stands in front of the field
    num_frames: int
    frame_stride: int
    jitter: tuple[int, int]
    flip: bool

    def __call__(self, record, rng):
        how = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[1:]}
        try:
            sizes = list(dict.fromkeys(self.sizes.values()))
            clips, short = train_clips(record["video"], rng, sizes, **how)
        except UserError as error:
            raise UserError(f"{record['key']}: {error}") from None
        shown = {f"{prefix}video": clips[size] for prefix, size in self.sizes.items()}
        return shown | {"label": np.int32(record["label"]), "short": short}
