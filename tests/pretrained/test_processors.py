"""Pixels as the processors of transformers and open_clip have them, or a line that says why not."""

import json
from pathlib import Path

import numpy as np
import pytest

from data import images
from encoders.models import image_loader
from errors import UserError
from models.towers import normalize
from models.transformer import VisionConfig
from pretrained import processors
from tests.golden.make_processors import MODEL_SIZE, PICTURE, PROCESSORS, picture

GOLDEN = Path(__file__).parents[1] / "golden" / "processors.npz"
CLIP, SIGLIP = PROCESSORS["clip"], PROCESSORS["siglip"]
OPEN_CLIP = {"mean": [0.5] * 3, "std": [0.25] * 3}


def shape(fields) -> VisionConfig:
    return VisionConfig(8, 1, 1, 4, MODEL_SIZE, 8, **fields)


def pixels(vision: VisionConfig):
    prepared = image_loader(vision)(picture(*PICTURE))
    return np.asarray(normalize(prepared, vision.mean, vision.std))[0]


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers(name):
    with np.load(GOLDEN) as golden:
        assert json.loads(str(golden["processors"])) == PROCESSORS
        expected = golden[f"transformers/{name}"]
    kind = "siglip" if name.startswith("siglip") else "clip"
    vision = shape(processors.from_hf(PROCESSORS[name], MODEL_SIZE, kind))
    # A pixel of 255 without rescaling is known to seven digits.
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(pixels(vision), expected, atol=2e-6 * scale)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_written_is_read_back(name):
    kind = "siglip" if name.startswith("siglip") else "clip"
    fields = processors.from_hf(PROCESSORS[name], MODEL_SIZE, kind)
    written = processors.to_hf(shape(fields), "Siglip" if kind == "siglip" else "CLIP")
    assert processors.from_hf(json.loads(json.dumps(written)), MODEL_SIZE, kind) == fields


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_resize": None}, "do_resize is None; it must be true or false"),
        ({"do_rescale": "false"}, "do_rescale is 'false'; it must be true or false"),
        ({"do_center_crop": False}, "do_center_crop is false with size {'shortest_edge': 16}"),
        ({"rescale_factor": 0}, "rescale_factor is 0; it must be a number above 0"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std is .*; it must be three numbers above 0"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "image_std is .*nan"),
        ({"image_std": -1}, "image_std is -1"),
        ({"image_mean": [0.5, float("inf"), 0.5]}, "image_mean is .*; it must be three numbers"),
        ({"image_mean": [0.5]}, "image_mean is .*; it must be three numbers"),
        ({"image_mean": "x"}, "image_mean is 'x'; it must be three numbers"),
        ({"size": {"shortest_edge": 12}}, "size is .*, smaller than crop_size"),
        ({"size": {"longest_edge": 16}}, "size is .*; give it a shortest_edge"),
        ({"size": {"shortest_edge": 16, "longest_edge": 40}}, "size is .*; give it a"),
        ({"size": {"height": 16, "width": 20}}, "size is .*; only squares are read"),
        ({"size": {"height": 16.5, "width": 16.5}}, "size is 16.5; it must be a whole number"),
        ({"size": {"shortest_edge": True}}, "size.shortest_edge is True"),
        ({"crop_size": {"height": 20, "width": 20}}, "crop_size is .*, but the model's images"),
        ({"crop_size": {"height": 16, "width": 12}}, "crop_size is .*; only squares"),
        ({"crop_size": None}, "crop_size is None; it must be a whole number"),
        ({"resample": 1}, "resample is 1; there are 2"),
        ({"resample": None}, "resample is None"),
        ({"do_pad": True}, "do_pad = True is not known here"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order = True is not known here"),
        ({"crop_pct": 0.9}, "crop_pct = 0.9 is not known here"),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is 'ViTImage"),
    ],
)
def test_what_would_change_pixels_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        processors.from_hf(CLIP | changes, MODEL_SIZE, "clip")


def test_another_processors_class_is_fine_where_the_file_says_all():
    stated = CLIP | {"image_processor_type": "SiglipImageProcessor"}
    fields = processors.from_hf(CLIP, MODEL_SIZE, "clip")
    assert processors.from_hf(stated, MODEL_SIZE, "clip") == fields


def test_what_a_file_does_not_say_is_the_classes_default():
    """transformers crops 224 pixels where crop_size is absent, whatever the model has."""
    short = {key: CLIP[key] for key in ("image_mean", "image_std", "resample")}
    fields = processors.from_hf(short, 224, "clip")
    assert (fields["resize"], fields["resize_to"]) == ("shortest", None)
    with pytest.raises(UserError, match="crop_size is 224, but the model's images have 16"):
        processors.from_hf(short, 16, "clip")
    assert processors.from_hf(short, 224, "siglip")["resize"] == "squash"
    with pytest.raises(UserError, match="size is 224; give it"):
        processors.from_hf(short | {"size": 224}, 224, "siglip")


@pytest.mark.parametrize("key", ["image_mean", "image_std", "resample"])
def test_what_must_be_said_is_asked_for(key):
    with pytest.raises(UserError, match=key):
        processors.from_hf({k: v for k, v in CLIP.items() if k != key}, MODEL_SIZE, "clip")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 20}, "preprocess_cfg.size is 20, but vision_cfg.image_size is 16"),
        ({"size": [16, 20]}, "preprocess_cfg.size is .*; only squares"),
        ({"mode": "L"}, "preprocess_cfg.mode is 'L'; there are: RGB"),
        ({"resize_mode": "longest"}, "preprocess_cfg.resize_mode is 'longest'"),
        ({"interpolation": "random"}, "preprocess_cfg.interpolation is 'random'"),
        ({"std": [0, 1, 1]}, "preprocess_cfg.std is .*; it must be three numbers above 0"),
        ({"mean": [float("nan")] * 3}, "preprocess_cfg.mean is"),
        ({"mean": None}, "preprocess_cfg.mean is None"),
        ({"crop_pct": 0.9}, "preprocess_cfg.crop_pct = 0.9 is not known here"),
    ],
)
def test_open_clips_fields_are_read_or_refused(changes, message):
    with pytest.raises(UserError, match=message):
        processors.from_open_clip(OPEN_CLIP | changes, MODEL_SIZE)


@pytest.mark.parametrize("size", [None, 16, [16, 16]])
def test_open_clip_crops_as_torchvision_does(size):
    stated = OPEN_CLIP | {"size": size, "mode": "RGB", "fill_color": 0}
    vision = shape(processors.from_open_clip(stated, MODEL_SIZE))
    assert vision.crop_corner == "nearest" and vision.mean == (0.5, 0.5, 0.5)
    expected = images.eval_image(picture(*PICTURE), MODEL_SIZE, corner="nearest")
    np.testing.assert_allclose(pixels(vision), (expected / 255 - 0.5) / 0.25, atol=1e-6)
    assert processors.from_open_clip(processors.to_open_clip(vision), MODEL_SIZE) == (
        processors.from_open_clip(stated, MODEL_SIZE)
    )
