"""Whose attention runs where, and that cuDNN's is in the program that a GPU would run."""

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from data.packing import pack
from errors import UserError
from models import attention, zoo
from models.clip import CLIP, init_params
from models.transformer import Compute

CUDNN = Compute(jnp.bfloat16, attention="cudnn")


def devices(monkeypatch, platform="cuda 12090", capability="9.0", kind="H100"):
    """As if these were the machine's; nothing can run on them."""
    client = SimpleNamespace(platform_version=platform)
    device = SimpleNamespace(
        client=client, compute_capability=capability, device_kind=kind, platform="gpu"
    )
    monkeypatch.setattr(attention.jax, "local_devices", lambda: [device])


@pytest.mark.parametrize(
    "machine, dtype, head_dim, obstacle",
    [
        ({}, "bfloat16", 64, ""),
        ({"capability": "8.0"}, "float16", 80, ""),
        ({"capability": "10.0"}, "bfloat16", 128, ""),
        ({"platform": "TFRT TPU", "kind": "v5e"}, "bfloat16", 64, "the devices are v5e, not NVID"),
        ({"platform": "rocm 6", "kind": "MI300"}, "bfloat16", 64, "the devices are MI300, not NV"),
        ({"capability": "7.5", "kind": "T4"}, "float16", 64, "T4 is older than Ampere"),
        ({}, "float32", 64, "the computation is in float32"),
        ({}, "bfloat16", 36, "heads are 36 wide"),
        ({}, "bfloat16", 160, "heads are 160 wide"),
    ],
)
def test_cudnn_is_chosen_where_it_can_be(machine, dtype, head_dim, obstacle, monkeypatch):
    devices(monkeypatch, **machine)
    compute = Compute(jnp.dtype(dtype))
    assert attention.choose(compute, head_dim) == ("xla" if obstacle else "cudnn")
    asked = dataclasses.replace(compute, attention="cudnn")
    if obstacle:
        with pytest.raises(UserError, match=f"is 'cudnn', but {obstacle}.*: give auto or xla"):
            attention.choose(asked, head_dim)
    else:
        assert attention.choose(asked, head_dim) == "cudnn"
    assert attention.choose(dataclasses.replace(compute, attention="xla"), head_dim) == "xla"


def test_cudnn_without_a_gpu_is_one_error_before_anything_is_computed():
    model = zoo.build("tiny", vocab_size=300, eos_token_id=299, attention="cudnn")
    with pytest.raises(UserError, match="config.model.attention is 'cudnn', but .*not NVIDIA GPUs"):
        jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    with pytest.raises(UserError, match="is 'flash'; there are: auto, xla, cudnn, pallas"):
        zoo.build("tiny", vocab_size=300, eos_token_id=299, attention="flash")


def test_it_is_said_which_is_in_use(monkeypatch):
    model = zoo.build("tiny", vocab_size=300, eos_token_id=299, dtype="bfloat16")
    assert attention.describe(model) == "attention is XLA's"
    devices(monkeypatch)
    assert "cuDNN's, and XLA's for packed texts" in attention.describe(model)


def attentions(config, packed, monkeypatch, **options):
    """Kinds of mask of cuDNN's calls in the program of a GPU: forwards and backwards."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    devices(monkeypatch)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    model = CLIP(config, dataclasses.replace(CUDNN, **options))
    params = meta.unbox(jax.eval_shape(functools.partial(init_params, model), jax.random.key(0)))
    shape = config.text.context_length
    text = np.tile(np.array([1, 2, config.text.eos_token_id] + [0] * (shape - 3), np.int32), (8, 1))
    size = config.vision.image_size
    image = jax.ShapeDtypeStruct((8, size, size, 3), jnp.uint8)
    packing = pack(text[None], shape, lambda rows: rows) if packed else None

    def loss(params, image):
        out = model.apply({"params": params}, image, text, packing=packing)
        return (out.image * out.text).sum()

    traced = jax.jit(jax.grad(loss)).trace(params, image)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"@__cudnn\$fmhaSoftmax(Backward)?\(.*?mask_type\\22: \\22(\w+)", program)
    return sorted((mask, "backward" if back else "forward") for back, mask in calls)


IMAGES = [("PADDING", "backward"), ("PADDING", "forward")]
CAUSAL = [("CAUSAL", "backward"), ("CAUSAL", "forward")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_gpus_program_calls_cudnn(packed, monkeypatch):
    """Images always, texts where no mask keeps them apart; a loop over layers is one call."""
    config = dataclasses.replace(zoo.shape("tiny"), video=None)
    assert attentions(config, packed, monkeypatch) == ([] if packed else CAUSAL) + IMAGES
    both = attentions(config, packed, monkeypatch, remat="dots_no_batch")
    # What attention hands out is made again on the way back.
    assert ("PADDING", "backward") in both and both.count(("PADDING", "forward")) == 2


@pytest.mark.parametrize("name, odd", [("ViT-B-32", 0), ("ViT-L-14", 1), ("ViT-H-14", 1)])
def test_every_shape_has_a_gradient_by_cudnn(name, odd, monkeypatch):
    images = ["PADDING" if odd else "NO_MASK"] * 2
    found = [mask for mask, _ in attentions(zoo.shape(name), False, monkeypatch)]
    assert found == sorted(images + ["CAUSAL"] * 2)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [6, 7])
def test_a_place_more_changes_nothing(length, is_causal):
    arrays = [x.astype(jnp.float32) for x in qkv(length, size=8)]

    def value_and_grads(attend):
        def loss(*x):
            return jnp.sum(jnp.sin(attend(*x)))

        return [attend(*arrays), *jax.grad(loss, argnums=(0, 1, 2))(*arrays)]

    ours = value_and_grads(lambda *x: attention.even(*x, is_causal, "xla"))
    plain = attention.of(Compute(), is_causal)
    for a, b in zip(ours, value_and_grads(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def qkv(length=50, heads=4, size=64):
    rng = np.random.default_rng(0)
    return [jnp.bfloat16(rng.normal(size=(3, length, heads, size))) for _ in range(3)]


@pytest.mark.skipif(
    jax.default_backend() != "gpu",
    reason="needs an NVIDIA GPU: JAX_PLATFORMS=cuda pytest tests/models/test_attention.py",
)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [50, 77, 257])
def test_cudnn_equals_xla_on_a_gpu(length, is_causal):
    def value_and_grads(dtype, name):
        attend = attention.of(Compute(dtype, attention=name), is_causal)
        loss = lambda *x: jnp.sum(jnp.sin(attend(*x).astype(jnp.float32)))  # noqa: E731
        arrays = [x.astype(dtype) for x in qkv(length)]
        return [attend(*arrays), *jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arrays)]

    exact = value_and_grads(jnp.float32, "xla")
    for theirs, ours, right in zip(
        value_and_grads(jnp.bfloat16, "xla"),
        value_and_grads(jnp.bfloat16, "cudnn"),
        exact,
        strict=True,
    ):
        error = np.abs(np.float32(ours) - right).max()
        assert error <= 2 * np.abs(np.float32(theirs) - right).max()
