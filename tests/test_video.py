"""FROSTER from files to scores as a user runs it: train.py, training.checkpoint_mean, eval.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.checkpoint_mean import read_weights

av = pytest.importorskip("av")

ROOT = Path(__file__).parents[1]
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 180, 30)}
# froster_vit_b16_ucf101_b2n, shortened.
SHORT = {
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "epochs": 2,
    "batch_size": 4,
    "log_every_steps": 1,
    "model.name": "tiny",
    "init.from": "",
    "optimizer.warmup_epochs": 1,
    "optimizer.learning_rate": 1e-3,
    "data.tokenizer_vocab_size": 600,
    "data.workers": 0,
    "data.frame_stride": 4,
    "data.jitter": (64, 80),
    "eval.video.frame_stride": 4,
    "eval.batch_size": 6,
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """FROSTER's workspace: lists and class texts below zs_label_db/, videos in ucf101/."""
    root = tmp_path_factory.mktemp("workspace")
    lists = root / "zs_label_db" / "B2N_ucf101"
    lists.mkdir(parents=True)
    (root / "ucf101").mkdir()
    for half, names in (("train", ("red", "blue")), ("test", ("green",))):
        texts = {str(i): f"Turn {name}: It is all {name}" for i, name in enumerate(names)}
        (lists / f"{half}_rephrased.json").write_text(json.dumps(texts))
    for file, names, count in (
        ("train", ("red", "blue"), 9),
        ("val", ("red", "blue"), 4),
        ("test", ("green",), 2),
    ):
        rows = []
        for i in range(count):
            label = i % len(names)
            path = f"{file} {i}.mp4"
            write(root / "ucf101" / path, COLOURS[names[label]], np.random.default_rng(i))
            rows.append(f"{path},{label}\n")
        (lists / f"{file}.csv").write_text("".join(rows))
    return root


def write(path: Path, colour, rng) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for _ in range(int(rng.integers(20, 40))):
            pixels = np.clip(rng.normal(colour, 10, (80, 96, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def run(*command) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_short_video_is_named(workspace):
    lists = "zs_label_db/B2N_ucf101"
    files = (f"--annotations={lists}/train.csv", f"--classes={lists}/train_rephrased.json")
    said = run("-m", "data.check", workspace, *files, "--videos=ucf101", "--seconds=1").splitlines()
    lasts = [int(np.random.default_rng(i).integers(20, 40)) for i in range(9)]
    short = [i for i, frames in enumerate(lasts) if frames < 30]
    assert said[-1] == f"{len(short)} of 9 videos are broken or short"
    assert all(f"train {i}.mp4 lasts" in line for i, line in zip(short, said, strict=False))


@pytest.mark.slow
def test_train_average_and_score(workspace, tmp_path):
    trained, averaged = tmp_path / "run", tmp_path / "averaged"
    run(
        *("train.py", "--config=tpu_configs/froster_vit_b16_ucf101_b2n.py"),
        *(f"--config.data.root={workspace}", f"--workdir={trained}"),
        *(f"--config.{key}={value}" for key, value in SHORT.items()),
    )
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    # Nine videos are two steps of four, an epoch; every epoch leaves a checkpoint.
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"cross_entropy", "distill_image", "distill_text", "top1"} <= rows[0].keys()
    # Before the first update student and teacher are the same but for the neighbouring frames.
    assert abs(rows[0]["distill_text"]) < 1e-6 < rows[0]["distill_image"]

    said = run(
        *("-m", "training.checkpoint_mean", f"--workdir={trained}", f"--output={averaged}"),
        *("--first_epoch=1", "--last_epoch=2"),
    )
    assert "the mean of 2 checkpoints, steps 2 to 4" in said
    scales = [logit_scale(trained, step) for step in (2, 4)]
    assert logit_scale(averaged, 4) == pytest.approx(np.mean(scales))

    said = run("eval.py", f"--workdir={averaged}", "--eval.benchmarks=video")
    report = json.loads((averaged / "results.json").read_text())["benchmarks"]["video"]["scores"]
    assert report["base_top1"]["count"] == 4 and report["novel_top1"]["value"] == 100
    assert f"harmonic_mean  {report['harmonic_mean']['value']:6.2f}" in said


def logit_scale(workdir: Path, step: int) -> float:
    return float(read_weights(workdir / "checkpoints" / str(step) / "params")["logit_scale"])
