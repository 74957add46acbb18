"""Images to uint8 [size, size, 3]; they are normalised on the device.

An image is a path, encoded bytes, an array [H, W] or [H, W, 3] (uint8, uint16 or bool), a PIL
image, a Crop of one of these, or Stored. Pixels are scaled by what their mode says of white; where
it does not say (32-bit integers, floats), the image is refused. EXIF orientation is left alone, as
in CLIP's own preprocessing.
"""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from errors import UserError
from paths import readable

# Pillow warns of a bomb and opens it all the same; only double the size is its error.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_MOST_ENLARGED = 2**24  # pixels that a picture is enlarged to before it is cropped
CORNERS = {
    "down": lambda rest: rest // 2,  # transformers
    "nearest": lambda rest: round(rest / 2),  # torchvision, so OpenAI's CLIP and open_clip
}


class Crop(NamedTuple):
    """A box of an image: left, top, width, height, in pixels."""

    image: Any
    box: tuple[int, int, int, int]


class Stored(NamedTuple):
    """An image that a data source holds, read when it is needed."""

    source: Any
    index: int
    name: str

    def read(self) -> bytes:
        """The encoded image."""
        return self.source[self.index]["image"]


def image_key(image) -> str:
    """What names an image: its path, or a hash of what it holds; of a crop, its box too."""
    if isinstance(image, Stored):
        return image.name
    if isinstance(image, Crop):
        return f"{image_key(image.image)}#{','.join(map(str, image.box))}"
    if isinstance(image, str | os.PathLike):
        return str(image)
    pixels = image if isinstance(image, bytes) else np.ascontiguousarray(image)
    shape = "" if isinstance(image, bytes) else str(pixels.shape)
    return "sha256:" + hashlib.sha256(shape.encode() + memoryview(pixels).cast("B")).hexdigest()


def decode(image, min_size: int | None = None) -> Image.Image:
    """Returns an image as RGB.

    Args:
      min_size: where given, a JPEG may come at 1/2, 1/4 or 1/8 of its size (DCT scaling, about
        twice as fast), its short side not below min_size pixels.

    Raises:
      UserError: no image, or a damaged one; names the path.
    """
    if isinstance(image, Crop):
        left, top, width, height = image.box
        return decode(image.image).crop((left, top, left + width, top + height))
    if isinstance(image, Stored):
        return decode(image.read(), min_size)
    with open_image(image) as opened, _named(image):
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
    return train_images(image, [size], rng, scale, ratio)[size]


def train_images(
    image, sizes: Collection[int], rng: np.random.Generator, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3)
) -> dict[int, np.ndarray]:
    """The crop of train_image() in several sizes."""
    with open_image(image) as opened:
        width, height = opened.size
        left, top, crop_width, crop_height = _random_crop(width, height, rng, scale, ratio)
        with _named(image):
            pixels = _load(opened, min(crop_width, crop_height) / max(sizes))
        x, y = pixels.width / width, pixels.height / height
        box = (left * x, top * y, (left + crop_width) * x, (top + crop_height) * y)
        bicubic = Image.Resampling.BICUBIC
        return {size: np.asarray(pixels.resize((size, size), bicubic, box)) for size in sizes}


def eval_image(
    image,
    size: int,
    resize_to: int | None = None,
    resample=Image.Resampling.BICUBIC,
    *,
    squash: bool = False,
    corner: str = "down",
) -> np.ndarray:
    """Returns a model's own preprocessing: resized, then the centre cropped.

    Args:
      resize_to: pixels (size): of the short side, or where squash is set of both sides.
      corner: how the crop's left upper corner is rounded, a name of CORNERS.

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
    # Rounded down, as torchvision and transformers do.
    width, height = (short if squash else int(short * side / least) for side in pixels.size)
    left, top = CORNERS[corner](width - size), CORNERS[corner](height - size)
    if width * height > max(_MOST_ENLARGED, pixels.width * pixels.height):
        # A strip, which enlarged would take gigabytes: only the crop, equal to a rounding or two.
        x, y = pixels.width / width, pixels.height / height
        right, bottom = min((left + size) * x, pixels.width), min((top + size) * y, pixels.height)
        return np.asarray(pixels.resize((size, size), resample, (left * x, top * y, right, bottom)))
    pixels = pixels.resize((width, height), resample)
    return np.asarray(pixels.crop((left, top, left + size, top + size)))


def _load(opened, shrink):
    """Decodes to RGB, a JPEG at a DCT scale of at least 1 / shrink."""
    if shrink >= 2 and opened.format == "JPEG":
        opened.draft("RGB", tuple(int(np.ceil(side / shrink)) for side in opened.size))
    # Pillow reads a grey PPM of 16 bits as 32-bit integers.
    if opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PPM"):
        opened = _of_16_bits(opened)
    elif opened.mode in ("I", "F"):
        kind = "floats" if opened.mode == "F" else "32-bit integers"
        raise ValueError(f"its pixels are {kind}, which do not say what is white; save it as 8 bit")
    elif opened.mode in ("La", "RGBa"):  # premultiplied, which only converts to its like
        opened = opened.convert(opened.mode.upper())
    if "transparency" in opened.info:
        opened = opened.convert("RGBA")
    return opened.convert("RGB")


def _of_16_bits(opened):
    """As 8 bits; convert() would clip to white."""
    values = np.asarray(opened)
    tags = opened.tag_v2 if opened.format == "TIFF" else {}
    bits = tags.get(258, (16,))[0]  # TIFF has 12 bits, too, which Pillow does not scale
    values = (values >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(262) == 0  # which Pillow minds at 8 bits only
    return Image.fromarray(255 - values if white_is_zero else values)


def _of_array(array):
    shape = array.shape
    if len(shape) == 3 and shape[2] == 1:
        array = array[:, :, 0]
    elif len(shape) != 2 and (len(shape) != 3 or shape[2] not in (2, 3, 4)):
        raise ValueError("an array should be [H, W] or [H, W, 3]")
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"its dtype is {array.dtype}; give uint8, 0 (black) to 255 (white)")
    return Image.fromarray(array)


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
def open_image(image):
    """The image, a file not decoded yet but its size known."""
    with contextlib.ExitStack() as stack:
        with _named(image):
            if isinstance(image, Image.Image):
                opened = image
            elif isinstance(image, np.ndarray):
                opened = _of_array(image)
            else:
                file = io.BytesIO(image) if isinstance(image, bytes) else readable(image)
                opened = stack.enter_context(Image.open(file))
            pixels, most = opened.width * opened.height, Image.MAX_IMAGE_PIXELS
            if not pixels:
                raise ValueError("it has no pixels")
            if most and pixels > most and not isinstance(image, np.ndarray):
                raise Image.DecompressionBombError()
        yield opened


@contextlib.contextmanager
def _named(image):
    """Whatever a decoder raises, and that is anything, becomes one line that names the image."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "it is not an image file that PIL knows"
        elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            reason = (
                f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit for "
                "decompression bombs; make it smaller"
            )
        raise UserError(
            f"cannot decode {_describe(image)}: {reason or type(error).__name__}"
        ) from None


def _describe(image):
    if isinstance(image, str | os.PathLike):
        return str(image)
    if isinstance(image, bytes):
        return f"an image of {len(image)} bytes"
    size = getattr(image, "shape", None) or getattr(image, "size", None)
    return f"an image of shape {size}" if size else f"a {type(image).__name__}"
