"""Names the videos or images of a source that a run could not use, before a run meets them.

python -m data.check DIR --source=captions --annotations=captions.json --images=images
python -m data.check DIR --source=video --annotations=train.csv --classes=classes.json

The other options are those of the source, as in config.data.options.
"""

import argparse
import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm import tqdm

from data import images, sources, video
from errors import UserError, one_line_errors

CLIP_SECONDS = 8 * 16 / video.TARGET_FPS


def faults(source, seconds: float = CLIP_SECONDS, workers: int | None = None) -> Iterator[str]:
    """Decodes all of every video or image and says, a line each, which cannot be used as it should.

    Args:
      seconds: length of a clip; videos that are shorter repeat their last frame.
      workers: processes; None: one for each core.
    """
    records = map(source.__getitem__, range(len(source)))
    # Not forked: whoever calls this may have threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        faults = pool.map(functools.partial(fault, seconds=seconds), records, chunksize=16)
        # A bar for people alone.
        yield from filter(None, tqdm(faults, total=len(source), unit="file", disable=None))


def fault(record, seconds: float = CLIP_SECONDS) -> str | None:
    """What keeps a record from being used as it should, in a line, or None."""
    try:
        if "video" in record:
            return _fault_of_video(record, seconds)
        images.decode(record["image"])
    except UserError as error:
        return f"{record['key']}: {error}"
    return None


def _fault_of_video(record, seconds: float) -> str | None:
    told = []

    def last(total, rate):
        told.append((total, rate))
        return np.array([total - 1])

    video.read_frames(record["video"], last)
    ((total, rate),) = told
    if total < seconds * rate:
        return f"{record['key']}: {record['video']} lasts {total / rate:.2f} s, less than a clip"
    return None


@one_line_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.check",
        description="Names the videos or images of a source that are broken, and videos that are "
        "shorter than a clip. The other options are those of the source.",
    )
    parser.add_argument("root", help="folder that the other paths start from")
    parser.add_argument("--source", default="video", help="see data/sources.py")
    parser.add_argument(
        "--seconds", type=float, default=CLIP_SECONDS, help="length of a clip of a video"
    )
    known, others = parser.parse_known_args(arguments)
    pairs = [option.removeprefix("--").partition("=") for option in others]
    if wrong := [
        option for option, (_, equals, _) in zip(others, pairs, strict=True) if not equals
    ]:
        parser.error(f"give options as --name=value, not {wrong[0]}")
    options = {name: value for name, _, value in pairs}
    source = sources.load(known.source, known.root, **options)
    count = 0
    for said in faults(source, known.seconds):
        tqdm.write(said)
        count += 1
    what = "videos are broken or short" if hasattr(source, "classes") else "images are broken"
    print(f"{count} of {len(source)} {what}")


if __name__ == "__main__":
    main()
