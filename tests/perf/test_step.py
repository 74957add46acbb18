"""perf/step.py compares like with like: both sides take the same steps on the same batch."""

import jax
import numpy as np
import pytest

from models import zoo
from perf import step as perf_step
from pretrained.load import save_weights
from tpu_configs import degla_vit_b32
from training import mesh as meshes


@pytest.fixture
def ours():
    config = degla_vit_b32.get_config()
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 0
    shape = zoo.shape("tiny-quickgelu")
    batch = perf_step.synthetic_batch(shape.vision.image_size)
    batch = perf_step.padded_and_packed(batch, config.data.text_rows)
    vocabulary = dict(vocab_size=perf_step.VOCAB_SIZE, eos_token_id=perf_step.END)
    model = zoo.build("tiny-quickgelu", **vocabulary)
    mesh = meshes.make_mesh(data=1, devices=jax.devices()[:1])
    return perf_step.Ours(model, batch, config, mesh)


def test_synthetic_captions_end_once_and_fit():
    batch = perf_step.synthetic_batch(8)
    texts = np.concatenate([batch["text"][:, None], batch["negatives"]], axis=1)
    assert texts.shape == (16, 5, 24)
    assert np.all((texts == perf_step.END).sum(axis=-1) == 1)
    assert 13 < (np.argmax(texts == perf_step.END, axis=-1) + 1).mean() < 15


def test_flops_are_those_of_the_matrix_products(ours):
    config, batch = ours.model.config, ours.batch
    products = 0
    for shape, rows in (
        (config.vision, batch["image"].shape[0] * config.vision.positions),
        (config.text, batch["text_slots"].size),
    ):
        products += 2 * rows * shape.layers * 12 * shape.width**2
    # Student forward, twice that backward, teacher forward; attention and the rest come on top.
    assert 1.0 < ours.flops() / (4 * products) < 1.35


@pytest.mark.parity
def test_torch_takes_the_same_steps(ours, tmp_path):
    pytest.importorskip("open_clip")
    from perf import peer

    folder = tmp_path / "model"
    save_weights(folder, ours.model.config, ours.state.params, "open_clip")
    vision = ours.model.config.vision
    perf_step.save_batch(folder, ours.batch, vision)
    torch_side = peer.Peer(folder, learning_rate=1e-3)
    losses = [(ours.step()["loss"], torch_side.step()["loss"]) for _ in range(3)]
    assert losses[-1][0] < losses[0][0] - 0.1
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-4)
