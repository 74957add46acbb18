"""Images to uint8 [size, size, 3]; they are normalised on the device.

An image is a path, encoded bytes, a uint8 array [H, W] or [H, W, 3] or a PIL image. EXIF
orientation is left alone, as in CLIP's own preprocessing.
"""

import contextlib
import io
import os

import numpy as np
from PIL import Image

from errors import UserError


def decode(image, min_size: int | None = None) -> Image.Image:
    """Returns an image as RGB.

    Args:
      min_size: where given, a JPEG may come at 1/2, 1/4 or 1/8 of its size (DCT scaling, about
        twice as fast), its short side not below min_size pixels.

    Raises:
      UserError: no image, or a damaged one; names the path.
    """
    with _opened(image) as opened:
        return _load(opened, min(opened.size) / min_size if min_size else 1)


def train_image(image, size: int, rng: np.random.Generator, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3)):
    """Returns a random resized crop, uint8 [size, size, 3], bicubic.

    A JPEG is decoded at the smallest DCT scale at which the crop has `size` pixels a side, so
    scaling never makes a crop coarser than the photograph.

    Args:
      scale: least and greatest area of the crop, as a share of the image.
      ratio: least and greatest width / height of the crop.

    Raises:
      UserError: as decode.
    """
    with _opened(image) as opened:
        width, height = opened.size
        left, top, crop_width, crop_height = _random_crop(width, height, rng, scale, ratio)
        pixels = _load(opened, min(crop_width, crop_height) / size)
        x, y = pixels.width / width, pixels.height / height
        box = (left * x, top * y, (left + crop_width) * x, (top + crop_height) * y)
        return np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC, box))


def eval_image(
    image, size: int, resize_to: int | None = None, resample=Image.Resampling.BICUBIC
) -> np.ndarray:
    """Returns CLIP's own preprocessing: short side to resize_to (size), bicubic, centre crop.

    Returns:
      uint8 [size, size, 3].

    Raises:
      UserError: as decode; resize_to below size.
    """
    short = resize_to or size
    if short < size:
        raise UserError(f"cannot crop {size} pixels out of images resized to {short}")
    pixels = decode(image)
    least = min(pixels.size)
    # Rounded down, as torchvision and transformers do; so is the crop's corner.
    width, height = (int(short * side / least) for side in pixels.size)
    pixels = pixels.resize((width, height), resample)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(pixels.crop((left, top, left + size, top + size)))


def _load(opened, shrink):
    """Decodes to RGB, a JPEG at a DCT scale of at least 1 / shrink."""
    if shrink >= 2 and opened.format == "JPEG":
        opened.draft("RGB", tuple(int(np.ceil(side / shrink)) for side in opened.size))
    if opened.mode == "I;16":  # convert() would clip 16 bits to white
        opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    if "transparency" in opened.info:
        opened = opened.convert("RGBA")
    return opened.convert("RGB")


def _random_crop(width, height, rng, scale, ratio):
    """(left, top, width, height) as torchvision's RandomResizedCrop.get_params draws them."""
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        crop_width, crop_height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = rng.integers(width - crop_width, endpoint=True)
            top = rng.integers(height - crop_height, endpoint=True)
            return left, top, crop_width, crop_height
    aspect = np.clip(width / height, *ratio)
    crop_width = min(width, round(height * aspect))
    crop_height = min(height, round(width / aspect))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


@contextlib.contextmanager
def _opened(image):
    """The image, a file not decoded yet but its size known; errors become one line and name it."""
    try:
        if isinstance(image, Image.Image):
            yield image
        elif isinstance(image, np.ndarray):
            yield Image.fromarray(image)
        else:
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                yield opened
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "it is not an image file that PIL knows"
        raise UserError(f"cannot decode {_describe(image)}: {reason}") from None


def _describe(image):
    if isinstance(image, str | os.PathLike):
        return str(image)
    if isinstance(image, bytes):
        return f"an image of {len(image)} bytes"
    return f"an image of shape {image.shape if isinstance(image, np.ndarray) else image.size}"
