"""Prints how many photographs a second one core decodes and crops for training.

python perf/images.py FOLDER [--size 224] [--seconds 10]
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data import images


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of photographs")
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the crop")
    parser.add_argument("--seconds", type=float, default=10, help="how long to measure")
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        parser.error(f"no .jpg files in {options.folder}")
    contents = [path.read_bytes() for path in paths[:500]]  # decoding is measured, not the disk
    sizes = [images.decode(content).size for content in contents]
    rng, count, start = np.random.default_rng(0), 0, time.process_time()
    for content in itertools.cycle(contents):
        images.train_image(content, options.size, rng)
        count += 1
        if (seconds := time.process_time() - start) > options.seconds:
            break
    width, height = np.mean(sizes, axis=0)
    print(
        f"{count / seconds:.0f} images/s/core: {len(contents)} JPEGs of {width:.0f} x {height:.0f} "
        f"pixels on average to {options.size} x {options.size} (Pillow {Image.__version__})"
    )


if __name__ == "__main__":
    main()
