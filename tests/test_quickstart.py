"""The quickstart as a new user runs it, shortened: no flag but the config, nothing downloaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.world import TYPES
from tpu_configs import quickstart

ROOT = Path(__file__).parents[1]
SHORT = {
    "total_steps": 3,
    "batch_size": 8,
    "optimizer.warmup_steps": 1,
    "eval.world.scenes": 40,
    "eval.world.per_class": 1,
}


@pytest.mark.slow
def test_it_runs_to_its_report(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            f"--config={ROOT}/tpu_configs/quickstart.py",
            *(f"--config.{key}={value}" for key, value in SHORT.items()),
        ],
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "quickstart"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    before, after = (row for row in rows if "world/composition" in row)
    assert (before["step"], after["step"]) == (0, 3)
    names = ["zero_shot_seen", "zero_shot_unseen", "image_to_text_recall@1"]
    names += [f"{split}_{kind}" for split in ("seen", "unseen") for kind in TYPES]
    for name in names:
        name = f"world/{name}"
        line = next(line for line in result.stdout.splitlines() if line.split()[:1] == [name])
        values = [before[name], after[name], after[name] - before[name]]
        assert [float(value) for value in line.split()[1:]] == pytest.approx(values, abs=0.06)
    with Image.open(run / "report.png") as image:
        assert min(image.size) > 300
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "judged differently" in page and "During training" in page
    assert json.loads((run / "results.json").read_text())["against"]["differences"]["world"]
    assert "Next:" in result.stdout and "runs/quickstart" in result.stdout


def test_it_never_shows_a_class_of_the_held_out_split():
    sources = quickstart.get_config().data.options.sources
    assert {name: options.get("negatives", True) for name, options in sources.items()} == {
        "told": True,
        "held": False,
    }
    for options in sources.values():
        assert options.nouns == "seen" and options.get("part", "train") == "train"
