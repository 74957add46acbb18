"""Towers and weights against transformers' and open_clip's torch models: goldens, and live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import zoo
from models.clip import CLIP
from pretrained import configs, names
from tests.pretrained.goldens import NAMES, make_clip, read_golden, section


def infonce(model, params, image, text):
    out = model.apply({"params": params}, image, text)
    logits = out.logit_scale * out.image @ out.text.T
    if out.logit_bias is not None:
        logits = logits + out.logit_bias
    rows = jnp.arange(len(logits))
    log_p = jax.nn.log_softmax(logits)[rows, rows] + jax.nn.log_softmax(logits.T)[rows, rows]
    return -log_p.mean() / 2, (out, logits)


def check_against(arrays, config, layout, *, gradients=True):
    """Ours from arrays' weights and inputs, beside torch's outputs and gradients."""
    params = names.from_torch(section(arrays, "weights/"), config, layout)
    model = CLIP(config)
    args = (params, arrays["image"], arrays["text"])
    if gradients:
        run = jax.jit(jax.value_and_grad(lambda *args: infonce(model, *args), has_aux=True))
        (loss, (out, logits)), grads = run(*args)
    else:
        loss, (out, logits) = jax.jit(lambda *args: infonce(model, *args))(*args)
    np.testing.assert_allclose(out.image, arrays["image_embeds"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(out.text, arrays["text_embeds"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-5)
    if gradients:
        theirs = section(arrays, "gradients/")
        ours = names.to_torch(grads, config, layout)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            # Relative to the tensor: a key's bias, for one, has no gradient but rounding's.
            scale = max(np.abs(value).max(), 1e-2 * np.abs(theirs["logit_scale"]).max())
            atol = min(1e-5, 1e-4 * scale)
            np.testing.assert_allclose(ours[name], value, atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_equals_golden(name):
    config, layout, arrays = read_golden(name)
    check_against(arrays, config, layout)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_bit_identical(name):
    config, layout, arrays = read_golden(name)
    stored = section(arrays, "weights/")
    back = names.to_torch(names.from_torch(stored, config, layout), config, layout)
    assert back.keys() == stored.keys()
    for key, value in stored.items():
        assert back[key].shape == value.shape and back[key].dtype == value.dtype
        np.testing.assert_array_equal(back[key], value)


def test_the_wrong_activation_is_seen():
    """The goldens can tell the activations apart, so that parity means something."""
    config, layout, arrays = read_golden("quick_gelu")
    assert config.vision.activation == config.text.activation == "quick_gelu"
    with pytest.raises(AssertionError):
        check_against(arrays, zoo.with_activation(config, "gelu"), layout, gradients=False)


def test_every_parameter_has_one_row():
    for name in NAMES:
        config, layout, _ = read_golden(name)
        paths = [entry.path for entry in names.table(layout, config)]
        shapes = names.parameter_shapes(config)
        assert sorted(paths) == sorted(shapes)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "gelu_pytorch_tanh"])
def test_equals_transformers_live(kind, activation):
    pytest.importorskip("torch")
    stored = make_clip["hf_config"](kind, activation)
    images = make_clip["SIGLIP_IMAGES" if kind == "siglip" else "CLIP_IMAGES"]
    config = configs.from_hf(stored, images)
    model = make_clip["randomise"](make_clip["hf_model"](stored), seed=11)
    image, text = make_clip["inputs"](config.vision.image_size, 9, 41, seed=11)
    arrays = make_clip["run"](model, image, text) | {"image": image, "text": text}
    check_against(arrays, config, "hf")
