"""Names the videos of a list that are broken, or shorter than a clip, before a run meets them.

python -m data.check DIR --annotations=train.csv --classes=classes.json --videos=videos
"""

import argparse
import functools
import inspect
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm import tqdm

from data import video
from errors import UserError, one_line_errors


def faults(videos, seconds: float, workers: int | None = None) -> Iterator[str]:
    """Decodes all of every video and says, a line each, which cannot be used as they should.

    Args:
      videos: a source.
      seconds: length of a clip; videos that are shorter repeat their last frame.
      workers: processes; None: one for each core.
    """
    records = map(videos.__getitem__, range(len(videos)))
    # Not forked: whoever calls this may have threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        found = pool.map(functools.partial(_fault, seconds=seconds), records, chunksize=16)
        # A bar for people alone.
        yield from filter(None, tqdm(found, total=len(videos), unit="video", disable=None))


def _fault(record, seconds: float) -> str | None:
    told = []

    def last(total, rate):
        told.append((total, rate))
        return np.array([total - 1])

    try:
        video.read_frames(record["video"], last)
    except UserError as error:
        return f"{record['key']}: {error}"
    ((total, rate),) = told
    if total < seconds * rate:
        return f"{record['key']}: {record['video']} lasts {total / rate:.2f} s, less than a clip"
    return None


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.check",
        description="Names the videos of a list that are broken or short.",
    )
    parser.add_argument("root", help="folder that the other paths start from")
    for name, parameter in inspect.signature(video.load).parameters.items():
        if name != "root":
            parser.add_argument(f"--{name}", default=parameter.default, help="see data/video.py")
    clip = 8 * 16 / video.TARGET_FPS
    parser.add_argument("--seconds", type=float, default=clip, help="length of a clip")
    options = vars(parser.parse_args())
    seconds = options.pop("seconds")
    videos, count = video.load(**options), 0
    for fault in faults(videos, seconds):
        tqdm.write(fault)
        count += 1
    print(f"{count} of {len(videos)} videos are broken or short")


if __name__ == "__main__":
    main()
