"""How pixels are prepared, from and to transformers' image processors and open_clip's configs."""

import math
from collections.abc import Mapping
from typing import Any

from errors import UserError
from models.transformer import VisionConfig

# PIL's numbers, as preprocessor_config.json has them.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_RESIZE = ("shortest", "squash")
# Class of the processor -> what it does where its file does not say.
_HF_DEFAULTS = {
    "CLIP": {"do_center_crop": True, "size": {"shortest_edge": 224}, "crop_size": 224},
    "Siglip": {"do_center_crop": False, "size": {"height": 224, "width": 224}},
}
_HF_CLASS_ENDS = ("Fast", "Pil", "ImageProcessor", "FeatureExtractor")
_HF_READ = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize "
    "image_mean image_std image_processor_type feature_extractor_type"
).split()
# What may stand there without changing the pixels of an RGB picture.
_HF_NEUTRAL = (
    "processor_class do_convert_rgb data_format input_data_format return_tensors device "
    "disable_grouping _valid_processor_keys"
).split()
_OPEN_CLIP_READ = "size mode mean std interpolation resize_mode".split()
_OPEN_CLIP_NEUTRAL = ["fill_color"]  # only of padding, which no mode that is read has


def from_hf(images: Mapping[str, Any], image_size: int, model_type: str) -> dict[str, Any]:
    """The fields of VisionConfig that a preprocessor_config.json states.

    Args:
      image_size: of the model's image tower, pixels.
      model_type: clip or siglip, whose processor it is where the file does not say.

    Raises:
      UserError: it states what is not done here, or what does not fit the model; names the field.
    """
    images = _processor_defaults(images, model_type) | dict(images)
    _refuse_unknown("the image processor's ", images, _HF_READ + _HF_NEUTRAL)
    if not _flag(images, "do_resize"):
        raise UserError("do_resize is false, and pictures of any size do not fit the model")
    if images.get("resample") not in _RESAMPLE:
        raise UserError(
            f"resample is {images.get('resample')}; there are 2 (bilinear) and 3 (bicubic)"
        )
    squash, resized = _hf_size(images, model_type)
    if _flag(images, "do_center_crop"):
        cropped = _square(images["crop_size"], "crop_size")
    elif squash:
        cropped = resized
    else:
        raise UserError(
            f"do_center_crop is false with size {images['size']}, which leaves pictures that are "
            "no squares; give size a height and a width, or crop"
        )
    if cropped != image_size:
        field = "crop_size" if _flag(images, "do_center_crop") else "size"
        raise UserError(
            f"{field} is {images[field]}, but the model's images have {image_size} pixels a side "
            "(vision_config.image_size); one of the two is another model's"
        )
    if resized < cropped:
        raise UserError(
            f"size is {images['size']}, smaller than crop_size {images['crop_size']}: pictures "
            "would be padded, which is not done here"
        )
    return _hf_statistics(images) | dict(
        interpolation=_RESAMPLE[images["resample"]],
        resize=_RESIZE[squash],
        resize_to=None if resized == image_size else resized,
        crop_corner="down",
    )


def _processor_defaults(images: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What the processor's class does where its file does not say."""
    stated = images.get("image_processor_type") or images.get("feature_extractor_type")
    kind = stated or {"clip": "CLIP", "siglip": "Siglip"}[model_type]
    for end in _HF_CLASS_ENDS:
        kind = str(kind).removesuffix(end)
    if kind not in _HF_DEFAULTS:
        known = " and ".join(f"{name}ImageProcessor" for name in _HF_DEFAULTS)
        raise UserError(f"image_processor_type is {stated!r}; there are: {known}")
    same = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    return same | {"rescale_factor": 1 / 255, "crop_size": None} | _HF_DEFAULTS[kind]


def _refuse_unknown(where: str, stated: Mapping[str, Any], known) -> None:
    for key, value in stated.items():
        if value and key not in known:
            raise UserError(
                f"{where}{key} = {value!r} is not known here, and may change the pixels; if it "
                "does not, remove it"
            )


def _flag(images: Mapping[str, Any], key: str) -> bool:
    value = images[key]
    if not isinstance(value, bool) and not (key == "do_center_crop" and value is None):
        raise UserError(f"{key} is {value!r}; it must be true or false")
    return bool(value)


def _hf_size(images: Mapping[str, Any], model_type: str) -> tuple[bool, int]:
    """Whether both sides are resized to one length, or else the shorter one; and that length."""
    size = images["size"]
    if isinstance(size, int) and model_type == "clip":
        return False, _pixels(size, "size")
    keys = {key for key, value in size.items() if value} if isinstance(size, Mapping) else None
    if keys == {"shortest_edge"}:
        return False, _pixels(size["shortest_edge"], "size.shortest_edge")
    if keys == {"height", "width"}:
        return True, _square(size, "size")
    raise UserError(f"size is {size!r}; give it a shortest_edge, or a height and a width")


def _square(size, key: str) -> int:
    """A size of equal sides, whose forms are 224, [224, 224] and {"height": 224, "width": 224}."""
    sides = size
    if isinstance(size, Mapping) and {k for k, v in size.items() if v} == {"height", "width"}:
        sides = [size["height"], size["width"]]
    elif not isinstance(size, list | tuple):
        sides = [size, size]
    if len(sides) != 2 or sides[0] != sides[1]:
        raise UserError(f"{key} is {size!r}; only squares are read")
    return _pixels(sides[0], key)


def _pixels(value, key: str) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{key} is {value!r}; it must be a whole number of pixels above 0")
    return value


def _channels(value, key: str, above: float = -math.inf) -> tuple[float, float, float]:
    """A number for each channel, which may be stated as one for all."""
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    numbers = all(type(v) in (int, float) and math.isfinite(v) and v > above for v in values)
    if len(values) != 3 or not numbers:
        wanted = "numbers" if above < 0 else f"numbers above {above:g}"
        raise UserError(f"{key} is {value!r}; it must be three {wanted}")
    return tuple(values)


def _hf_statistics(images: Mapping[str, Any]) -> dict[str, Any]:
    """mean and std of channels in [0, 1] that do what the processor does to those in [0, 255]."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(images, "do_normalize"):
        for key in ("image_mean", "image_std"):
            if key not in images:
                raise UserError(f"the image processor has no {key}")
        mean = _channels(images["image_mean"], "image_mean")
        std = _channels(images["image_std"], "image_std", above=0.0)
    factor = images["rescale_factor"] if _flag(images, "do_rescale") else 1.0
    if type(factor) not in (int, float) or not (math.isfinite(factor) and factor > 0):
        raise UserError(f"rescale_factor is {factor!r}; it must be a number above 0")
    # (factor x - mean) / std = (x / 255 - mean / scale) / (std / scale)
    scale = 255 * factor
    if not math.isclose(scale, 1, rel_tol=1e-6):
        mean, std = (tuple(value / scale for value in values) for values in (mean, std))
    return {"mean": mean, "std": std}


def to_hf(vision: VisionConfig, kind: str) -> dict[str, Any]:
    """preprocessor_config.json of a processor of transformers' class <kind>ImageProcessor."""
    square = {"height": vision.image_size, "width": vision.image_size}
    edge = vision.resize_to or vision.image_size
    squash = vision.resize == "squash"
    crop = not squash or edge != vision.image_size
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "image_mean": list(vision.mean),
        "image_std": list(vision.std),
        "resample": {name: number for number, name in _RESAMPLE.items()}[vision.interpolation],
        "size": {"height": edge, "width": edge} if squash else {"shortest_edge": edge},
        "do_center_crop": crop,
        **({"crop_size": square} if crop else {}),
    }


def from_open_clip(images: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """The fields of VisionConfig that open_clip's preprocess_cfg states.

    Raises:
      UserError: as from_hf().
    """
    where = "preprocess_cfg."
    _refuse_unknown(where, images, _OPEN_CLIP_READ + _OPEN_CLIP_NEUTRAL)
    for key in ("mean", "std"):
        if key not in images:
            raise UserError(f"{where}{key} is not there")
    if images.get("size") and _square(images["size"], f"{where}size") != image_size:
        raise UserError(
            f"{where}size is {images['size']}, but vision_cfg.image_size is {image_size}; one of "
            "the two is another model's"
        )
    chosen = {}
    for field, key, known in (
        ("mode", "mode", ("RGB",)),
        ("interpolation", "interpolation", ("bicubic", "bilinear")),
        ("resize", "resize_mode", _RESIZE),
    ):
        chosen[field] = images.get(key) or known[0]
        if chosen[field] not in known:
            raise UserError(f"{where}{key} is {images[key]!r}; there are: {', '.join(known)}")
    del chosen["mode"]
    return chosen | dict(
        mean=_channels(images["mean"], f"{where}mean"),
        std=_channels(images["std"], f"{where}std", above=0.0),
        crop_corner="nearest",
    )


def to_open_clip(vision: VisionConfig) -> dict[str, Any]:
    """open_clip's preprocess_cfg.

    Raises:
      UserError: open_clip prepares no pixels like that.
    """
    if vision.resize_to:
        raise UserError(
            f"open_clip cannot resize to {vision.resize_to} pixels and crop {vision.image_size}; "
            "use the layout hf or tutelage"
        )
    return {
        "mean": list(vision.mean),
        "std": list(vision.std),
        "interpolation": vision.interpolation,
        "resize_mode": vision.resize,
    }
