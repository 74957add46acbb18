"""Files of tensors: broken ones, torch's without torch, and the memory that reading takes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from models import zoo
from pretrained import configs, names
from pretrained.load import load_weights
from tests.pretrained.test_load import write_golden


def test_truncated_file_is_named(tmp_path):
    write_golden("gelu", tmp_path)
    path = tmp_path / "model.safetensors"
    for size in (path.stat().st_size - 100, 50, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match="model.safetensors is no whole safetensors file"):
            load_weights(tmp_path)


def test_torch_files_need_torch_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"any")
    with pytest.raises(ValueError, match=r"only be read with torch: pip install -e '.\[parity\]'"):
        load_weights(tmp_path / "weights.pt", config=zoo.shape("tiny"))


PEAK = """
import re, sys
from pathlib import Path
import jax
if sys.argv[2:]:
    import torch  # its own memory is not that of the weights
from pretrained.find import find_weights
from pretrained.load import load_weights

jax.block_until_ready(jax.numpy.zeros(3))
source = find_weights(sys.argv[1])

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
params = jax.block_until_ready(load_weights(source).params)
print((status("VmHWM") - before) / source.path.stat().st_size)
"""


def write_large(folder, save, layers):
    """A ViT-B/32 of so many layers in transformers' layout; save(tensors, folder) writes it."""
    config = zoo.shape("ViT-B-32")
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=layers),
        text=dataclasses.replace(config.text, layers=layers),
    )
    folder.mkdir()
    shapes = names.parameter_shapes(config)
    tensors = {
        name: np.ones(shape, np.float32)
        for entry in names.table("hf", config)
        for name, shape in names.torch_shapes(entry, shapes[entry.path]).items()
    }
    save(tensors, folder)
    for name, content in zip(
        ("config.json", "preprocessor_config.json"), configs.to_hf(config), strict=True
    ):
        (folder / name).write_text(json.dumps(content))


def peak_of_loading(folder, *options) -> float:
    """Host memory that loading adds at its peak, in another process; in sizes of the file."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_loading_is_below_1_3_files(tmp_path):
    def save(tensors, folder):
        safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    write_large(tmp_path / "in", save, layers=12)  # all of ViT-B/32: 605 MB
    # On a CPU the parameters themselves lie in host memory: 1.0 of it.
    assert 0.9 < peak_of_loading(tmp_path / "in") < 1.3
    (tmp_path / "in/model.safetensors").unlink()
