"""Reads tests/golden/clip_*.npz; see make_clip.py there."""

import json
import runpy
from pathlib import Path

import numpy as np

from pretrained import configs

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("gelu", "quick_gelu", "siglip", "open_clip_gelu", "open_clip_quick_gelu")
make_clip = runpy.run_path(str(GOLDEN / "make_clip.py"))


def read_golden(name):
    """(config, layout, arrays by key) of a golden file."""
    with np.load(GOLDEN / f"clip_{name}.npz") as file:
        arrays = dict(file)
    stored = json.loads(str(arrays.pop("config")))
    if "images" in stored:
        return configs.from_hf(stored["model"], stored["images"]), "hf", arrays
    return configs.from_open_clip(stored), "open_clip", arrays


def read_json(name):
    """The config files of a golden, as their libraries have them."""
    with np.load(GOLDEN / f"clip_{name}.npz") as file:
        return json.loads(str(file["config"]))


def section(arrays, name):
    """The arrays whose keys begin so, without it."""
    return {key.removeprefix(name): v for key, v in arrays.items() if key.startswith(name)}
