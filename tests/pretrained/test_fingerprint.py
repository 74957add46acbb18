"""The fingerprint, and the published config files that must give the named shapes."""

import dataclasses
import json

import numpy as np
import pytest

from models import zoo
from pretrained import configs, fingerprint

CLIP_IMAGES = {
    "crop_size": 224,
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
# config.json of openai/clip-vit-base-patch32, with what differs from transformers' defaults.
OPENAI_B_32 = {
    "architectures": ["CLIPModel"],
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {"bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu"},
    "text_config_dict": None,
    "vision_config": {"patch_size": 32, "hidden_act": "quick_gelu"},
    "vision_config_dict": None,
}
# laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
LAION_H_14 = {
    "model_type": "clip",
    "projection_dim": 1024,
    "text_config": {
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    },
    "vision_config": {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
    },
}
# google/siglip-base-patch16-224: all of it transformers' defaults.
SIGLIP = {
    "model_type": "siglip",
    "text_config": {"model_type": "siglip_text_model"},
    "vision_config": {"model_type": "siglip_vision_model"},
}
SIGLIP_IMAGES = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "size": {"height": 224, "width": 224},
}


@pytest.mark.parametrize(
    "model, images, name",
    [
        (OPENAI_B_32, CLIP_IMAGES, "ViT-B-32-quickgelu"),
        (LAION_H_14, CLIP_IMAGES, "ViT-H-14"),
        (SIGLIP, SIGLIP_IMAGES, "ViT-B-16-SigLIP"),
    ],
)
def test_published_configs_are_the_named_shapes(model, images, name):
    here = fingerprint.fingerprint(zoo.shape(name))
    there = fingerprint.fingerprint(configs.from_hf(model, images))
    assert not fingerprint.differences(there, here)


@pytest.mark.parametrize("name", zoo.SHAPES)
def test_there_and_back_through_json(name):
    config = zoo.shape(name)
    stored = json.loads(json.dumps(fingerprint.fingerprint(config, "abc")))
    assert fingerprint.config_of(stored, name) == config
    assert not fingerprint.differences(stored, fingerprint.fingerprint(config, "abc"))


@pytest.mark.parametrize(
    "stored", [{}, {"vision": {}}, {"vision": {"mean": 1, "std": 2}}, [1], "x", 3]
)
def test_what_is_no_fingerprint_is_said(stored):
    with pytest.raises(ValueError, match="a/file: not a fingerprint of this version"):
        fingerprint.config_of(stored, "a/file")


@pytest.mark.parametrize("tower", ["vision", "text"])
@pytest.mark.parametrize("value", [None, -3, 1.5, True, "x", (1,), {"a": 1}])
def test_a_field_that_no_model_can_have_is_named(tower, value):
    """No field of a tower takes any of these, but ln_epsilon a float, and resize_to None."""
    config = zoo.shape("tiny")
    part = getattr(config, tower)
    for field in dataclasses.fields(part):
        if (field.name, value) in (("ln_epsilon", 1.5), ("resize_to", None)):
            continue
        given = (value,) if field.name in ("mean", "std") else value
        changed = dataclasses.replace(part, **{field.name: given})
        with pytest.raises(ValueError, match=rf"^a/file: {tower}\.{field.name} is .*; it must be"):
            fingerprint.check_shape(dataclasses.replace(config, **{tower: changed}), "a/file")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": 3}, "vision.width, 128, is no multiple of its 3 heads"),
        ({"image_size": 15}, "images of 15 pixels hold no patch of 16"),
    ],
)
def test_numbers_that_do_not_go_together_are_named(change, message):
    config = zoo.shape("tiny")
    vision = dataclasses.replace(config.vision, **change)
    with pytest.raises(ValueError, match=message):
        fingerprint.check_shape(dataclasses.replace(config, vision=vision), "a/file")


@pytest.mark.parametrize("name", zoo.SHAPES)
def test_named_shapes_are_shapes(name):
    fingerprint.check_shape(zoo.shape(name), name)


def test_every_field_that_matters_is_compared():
    """Change each field in turn: all but the initial values and the crop's corner must be seen."""
    config = zoo.shape("ViT-B-16-SigLIP")
    here = fingerprint.fingerprint(config)
    for tower in ("vision", "text"):
        part = getattr(config, tower)
        for field in dataclasses.fields(part):
            changed = dataclasses.replace(part, **{field.name: "other"})
            there = fingerprint.fingerprint(dataclasses.replace(config, **{tower: changed}))
            lines = fingerprint.differences(there, here)
            if field.name == "crop_corner":
                assert not lines
                continue
            (line,) = lines
            assert line.startswith(f"{tower}.{field.name} is other there and "), field.name
    for change in ({"embed_dim": 3}, {"logit_bias_init": None}):
        there = fingerprint.fingerprint(dataclasses.replace(config, **change))
        assert len(fingerprint.differences(there, here)) == 1
    for change in ({"logit_scale_init": 3.0}, {"logit_bias_init": -3.0}):
        there = fingerprint.fingerprint(dataclasses.replace(config, **change))
        assert not fingerprint.differences(there, here)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.0, -0.5])
@pytest.mark.parametrize("field", ["mean", "std", "ln_epsilon"])
def test_numbers_that_make_no_pixels_are_named(number, field):
    config = zoo.shape("tiny")
    value = number if field == "ln_epsilon" else (0.5, number, 0.5)
    vision = dataclasses.replace(config.vision, **{field: value})
    changed = dataclasses.replace(config, vision=vision)
    if field == "mean" and np.isfinite(number):
        return fingerprint.check_shape(changed, "a/file")
    with pytest.raises(ValueError, match=f"a/file: vision.{field} is .*; it must be"):
        fingerprint.check_shape(changed, "a/file")


def test_a_tokenizer_is_compared_where_both_know_theirs():
    config = zoo.shape("tiny")
    one, other, unknown = (fingerprint.fingerprint(config, h) for h in ("a", "b", None))
    assert fingerprint.differences(one, other) == ["tokenizer_hash is a there and b here"]
    assert not fingerprint.differences(one, unknown) and not fingerprint.differences(unknown, one)
