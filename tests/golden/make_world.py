"""Writes world.json and world.npz: the first records of the embedded world (tests/data/test_world).

Run from the root of the repository: PYTHONPATH=. python tests/golden/make_world.py
"""

import json
from pathlib import Path

import numpy as np

from data.world import World

if __name__ == "__main__":
    folder = Path(__file__).parent
    records = [World()[i] for i in range(12)]
    texts = [[*record["captions"], *record["negatives"]] for record in records]
    (folder / "world.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
    images = np.stack([record["image"] for record in records])
    np.savez_compressed(folder / "world.npz", images=images)
