"""A run of LoRA on a mesh, as everyone reads it who reads runs."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from data.tokenizer import load_tokenizer
from encoders.models import find_model, restore
from pretrained import convert
from pretrained.load import load_weights
from tpu_configs import base
from train import train
from training import mesh as meshes

pytestmark = pytest.mark.slow
SHORT = {
    "method.name": "clip",
    "train.lora.rank": 4,
    "batch_size": 8,
    "total_steps": 2,
    "checkpoint.every_steps": 2,
    "log_every_steps": 1,
    "optimizer.warmup_steps": 1,
    "optimizer.weight_decay": 0.5,
    "data.options.length": 64,
    "data.text_rows": (1.0,),
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
}


def weights(source) -> dict[str, np.ndarray]:
    flat = traverse_util.flatten_dict(load_weights(source).params, sep="/")
    return {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "lora"
    config = base.get_world_config()
    config.update_from_flattened_dict(SHORT)
    train(config, workdir)
    return workdir


def test_lora_is_merged_on_export(lora, tmp_path):
    with ocp.StandardCheckpointer() as reader:
        learned = reader.restore(lora / "checkpoints" / "2" / "params")
        frozen = reader.restore(lora / "fixed" / "params")
    product = learned["text"]["transformer"]["blocks"]["fc"]["kernel"]
    kernel = frozen["text"]["transformer"]["blocks"]["fc"]["kernel"]
    a, b = (np.asarray(product[name], np.float64) for name in ("lora_a", "lora_b"))
    expected = np.asarray(kernel["frozen"], np.float64) + np.einsum("lir,lro->lio", a, b)
    for layout in ("hf", "tutelage"):
        convert.main([str(lora), str(tmp_path / layout), f"--layout={layout}"])
        exported = weights(tmp_path / layout)
        np.testing.assert_allclose(
            exported["text/transformer/blocks/fc/kernel"], expected, rtol=0, atol=1e-6
        )
        jax.tree.map(np.testing.assert_array_equal, exported, weights(lora))


def test_lora_is_evaluated_as_it_is_exported(lora):
    source, _ = find_model(str(lora), None)
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    _, params = restore(source, mesh, load_tokenizer(lora / "tokenizer"))
    flat = traverse_util.flatten_dict(params, sep="/")
    jax.tree.map(
        np.testing.assert_array_equal, {k: np.float64(v) for k, v in flat.items()}, weights(lora)
    )


def test_a_checkpoint_of_lora_is_small(lora):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    whole = sum(leaf.size for leaf in weights(lora).values()) * 4
    checkpoint = size(lora / "checkpoints" / "2")
    assert checkpoint < 0.25 * whole < size(lora / "fixed" / "params")
