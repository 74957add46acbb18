"""Prints how many photographs, or clips of videos, one core decodes and crops a second.

python -m perf.images FOLDER [--size 224] [--seconds 10]
python -m perf.images FOLDER --peer # beside torch's DataLoader (pip install -e ".[parity]")
python -m perf.images --rendered    # videos written for the purpose
"""

import argparse
import contextlib
import functools
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data import images, pipeline, video
from data.moving import Moving
from errors import one_line_errors

BATCH, ROUNDS = 64, 5
PHOTOGRAPHS, VIDEOS = (".jpg", ".jpeg"), (".avi", ".mkv", ".mp4", ".webm")


def write_videos(folder: Path, count: int = 8, seconds: int = 10) -> None:
    """Rendered clips with noise, 340 x 256 pixels at 30 frames a second, H.264 in mp4."""
    av = video.pyav()
    source, rng = Moving(size=256), np.random.default_rng(0)
    for i in range(count):
        with av.open(str(folder / f"{i}.mp4"), "w") as container:
            stream = container.add_stream("h264", rate=video.TARGET_FPS)
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            frames = np.pad(source[i]["video"], [(0, 0), (0, 0), (42, 42), (0, 0)], "edge")
            for t in range(seconds * video.TARGET_FPS):
                noise = rng.integers(0, 24, frames.shape[1:], np.uint8)
                pixels = frames[t // video.TARGET_FPS % len(frames)] // 2 + noise
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def measure(one, contents, seconds: float) -> float:
    """Calls of one(content) a second of this process."""
    count, start = 0, time.process_time()
    for content in itertools.cycle(contents):
        one(content)
        count += 1
        if (spent := time.process_time() - start) > seconds:
            return count / spent


def photographs(paths: list[Path], size: int, seconds: float) -> str:
    contents = [path.read_bytes() for path in paths[:500]]  # decoding is measured, not the disk
    width, height = np.mean([images.decode(content).size for content in contents], axis=0)
    one = functools.partial(images.train_image, size=size, rng=np.random.default_rng(0))
    return (
        f"{measure(one, contents, seconds):.0f} images/s/core: {len(contents)} JPEGs of "
        f"{width:.0f} x {height:.0f} pixels on average to {size} x {size} "
        f"(Pillow {Image.__version__})"
    )


def in_batches(paths: list[Path], size: int) -> Iterator[int]:
    """The pipeline that trains, without texts, in this process; yields the images of each batch."""

    def sample(path, rng):
        return {"image": images.train_image(path, size, rng)}

    batches = pipeline.sampled_batches(list(map(str, paths)), sample, batch_size=BATCH, seed=0)
    for batch in pipeline.arranged(batches, lambda batch: batch):
        yield len(batch["image"])


def peers_batches(paths: list[Path], size: int) -> Iterator[int]:
    """The same of torch's DataLoader and the transforms that open_clip trains with."""
    import open_clip
    import torch

    transform = open_clip.image_transform(
        size, is_train=True, mean=(0.481, 0.458, 0.408), std=(0.269, 0.261, 0.276)
    )

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, i):
            with Image.open(paths[i]) as image:
                return transform(image)

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(Photographs(), BATCH, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            yield len(batch)


def compare(paths: list[Path], size: int, seconds: float) -> str:
    """Images a second of this process's time, in turns."""
    repeated = paths * -(-BATCH // len(paths))
    pipelines = {"ours": in_batches(repeated, size), "torch's": peers_batches(repeated, size)}
    rates = {name: [] for name in pipelines}
    for batches in pipelines.values():
        next(batches)  # imports, first reads of the files
    for _ in range(ROUNDS):
        for name, batches in pipelines.items():
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < seconds / ROUNDS:
                count += next(batches)
            rates[name].append(count / spent)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Image.open(path)) for path in paths[:100]]
        width, height = np.mean([image.size for image in opened], axis=0)
    ours, theirs = (np.array(rates[name]) for name in pipelines)
    ratios = ours / theirs
    return (
        f"{len(paths)} JPEGs of {width:.0f} x {height:.0f} pixels to {size} x {size}, batches of "
        f"{BATCH}, images/s/core: ours {np.median(ours):.0f}, torch's DataLoader "
        f"{np.median(theirs):.0f}; {np.median(ratios):.2f} times ({ratios.min():.2f} to "
        f"{ratios.max():.2f} of {ROUNDS} rounds in turn)"
    )


def videos(paths: list[Path], size: int, seconds: float) -> str:
    one = functools.partial(video.train_clip, size=size, rng=np.random.default_rng(0))
    clips = measure(one, paths, seconds)
    return (
        f"{clips:.1f} clips/s/core, {8 * clips:.0f} images/s/core: 8 frames of a clip of each of "
        f"{len(paths)} videos to {size} x {size}"
    )


@one_line_errors()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of photographs or videos")
    parser.add_argument("--rendered", action="store_true", help="write videos and measure them")
    parser.add_argument("--peer", action="store_true", help="beside torch's DataLoader")
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the crop")
    parser.add_argument("--seconds", type=float, default=10, help="how long to measure")
    options = parser.parse_args()
    if (options.folder is None) != options.rendered:
        parser.error("give either a folder or --rendered")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.rendered:
            write_videos(folder)
        of_photographs = compare if options.peer else photographs
        for suffixes, report in ((PHOTOGRAPHS, of_photographs), (VIDEOS, videos)):
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
            if paths:
                print(report(paths, options.size, options.seconds))
                break
        else:
            parser.error(f"no {', '.join((*PHOTOGRAPHS, *VIDEOS))} files in {folder}")


if __name__ == "__main__":
    main()
