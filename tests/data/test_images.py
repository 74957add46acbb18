import io

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from data import images


@pytest.fixture(scope="module")
def photographs(shared):
    flickr = sorted((shared / "data/flickr8k/images").iterdir())[::40]
    return flickr + sorted((shared / "data/coco_val2017").iterdir())


@pytest.fixture
def photograph(shared):
    return shared / "data/coco_val2017/000000000724.jpg"


@pytest.fixture
def pattern():
    """Smooth colours, so that JPEG and DCT scaling change little."""
    y, x = np.mgrid[0:1.0:480j, 0:1.0:640j]
    channels = [np.sin(3 * x + y), np.cos(2 * x), x * y]
    return np.uint8(127 * (np.stack(channels, -1) + 1))


def jpeg(array, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "size, resize_to, resample",
    [(224, None, "BICUBIC"), (96, 128, "BICUBIC"), (96, 128, "BILINEAR")],
)
def test_eval_image_equals_transformers(photographs, size, resize_to, resample):
    resample = Image.Resampling[resample]
    processor = CLIPImageProcessorPil(
        resample=resample,
        size={"shortest_edge": resize_to or size},
        crop_size={"height": size, "width": size},
        do_normalize=False,
        do_rescale=False,
    )
    differences = []
    for path in photographs:
        with Image.open(path) as photograph:
            expected = processor(photograph, return_tensors="np")["pixel_values"][0]
        found = images.eval_image(path, size, resize_to, resample)
        assert found.shape == (size, size, 3) and found.dtype == np.uint8
        differences.append(np.abs(found - expected.transpose(1, 2, 0).astype(float)).mean())
    assert max(differences) <= 1, max(differences)


@pytest.mark.parametrize("width, height", [(224, 225), (225, 224), (301, 224), (50, 333)])
def test_eval_image_centres_odd_sizes_as_transformers(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    processor = CLIPImageProcessorPil(do_normalize=False, do_rescale=False)
    expected = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(images.eval_image(pixels, 224), expected.transpose(1, 2, 0))


def test_eval_image_refuses_a_crop_larger_than_the_image(photograph):
    with pytest.raises(ValueError, match="crop 224 pixels out of images resized to 200"):
        images.eval_image(photograph, 224, 200)


def test_paths_bytes_arrays_and_pil_images_give_the_same(photograph):
    with Image.open(photograph) as opened:
        forms = [photograph, str(photograph), photograph.read_bytes(), np.asarray(opened), opened]
        found = [images.eval_image(form, 64) for form in forms]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_decode_scales_no_further_than_asked(pattern):
    content = jpeg(pattern)
    sizes = {n: images.decode(content, n).size for n in (None, 480, 241, 240, 100, 60, 1)}
    assert sizes == {
        None: (640, 480),
        480: (640, 480),
        241: (640, 480),
        240: (320, 240),
        100: (160, 120),
        60: (80, 60),
        1: (80, 60),
    }


def test_train_image_is_the_crop_of_the_full_image(pattern):
    """DCT scaling changes the pixels by little, and the place of the crop not at all."""
    for seed in range(5):
        crops = [
            images.train_image(image, 60, np.random.default_rng(seed), scale=(0.3, 1))
            for image in (pattern, jpeg(pattern, subsampling=0))
        ]
        difference = np.abs(crops[0].astype(float) - crops[1])
        assert difference.mean() < 1 and difference.max() < 12


def test_train_image_never_enlarges_a_crop_because_of_scaling(pattern, monkeypatch):
    loaded, boxes = [], []
    load, random_crop = images._load, images._random_crop
    monkeypatch.setattr(images, "_load", lambda *a: loaded.append(load(*a)) or loaded[-1])
    monkeypatch.setattr(
        images, "_random_crop", lambda *a: boxes.append(random_crop(*a)) or boxes[-1]
    )
    content, rng = jpeg(pattern), np.random.default_rng(0)
    for size in (20, 40, 64, 100, 150, 224):
        for _ in range(20):
            images.train_image(content, size, rng, scale=(0.05, 1))
            x, y = loaded[-1].width / 640, loaded[-1].height / 480
            side = min(boxes[-1][2] * x, boxes[-1][3] * y)
            assert side >= size or x == y == 1
            assert side < 2.05 * size or x == 1 / 8  # and no larger than it needs to be
    assert {image.width for image in loaded} == {640, 320, 160, 80}


def test_random_crops_have_the_asked_area_ratio_and_place():
    rng = np.random.default_rng(0)
    boxes = np.array(
        [images._random_crop(400, 300, rng, (0.3, 0.6), (0.5, 2)) for _ in range(2000)]
    )
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (left + width <= 400).all()
    assert (top >= 0).all() and (top + height <= 300).all()
    area = width * height / (400 * 300)
    assert area.min() > 0.29 and area.max() < 0.61
    assert (width / height).min() > 0.49 and (width / height).max() < 2.03
    place = left / np.maximum(400 - width, 1)
    assert abs(place.mean() - 0.5) < 0.03 and place.min() == 0 and place.max() > 0.99


def test_a_crop_that_does_not_fit_is_central():
    rng = np.random.default_rng(0)
    assert images._random_crop(1000, 100, rng, (0.9, 1), (3 / 4, 4 / 3)) == (433, 0, 133, 100)
    assert images._random_crop(100, 1000, rng, (0.9, 1), (3 / 4, 4 / 3)) == (0, 433, 100, 133)


def test_train_image_depends_on_the_generator_only(photograph):
    first, again, other = (
        images.train_image(photograph, 64, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("RGB")
        image = image.quantize(256) if mode in ("P", "PA") else image.convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path, **({"transparency": bytes(range(256))} if mode == "PA" else {}))
    found = np.asarray(images.decode(path))
    assert found.shape == (64, 64, 3)
    # Black and white is dithered: only its average is the grey that it stands for.
    error = found.mean() - grey.mean() if mode == "1" else found.astype(float) - grey[..., None]
    assert np.abs(error).max() <= 4


def test_bad_files_are_one_clear_line(photograph, tmp_path):
    truncated = tmp_path / "cut.jpg"
    truncated.write_bytes(photograph.read_bytes()[:5000])
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    empty = tmp_path / "empty.png"
    empty.touch()
    reasons = {
        truncated: "truncated",
        text: "not an image file",
        empty: "not an image file",
        tmp_path / "gone.jpg": "No such file",
        tmp_path: "Is a directory",
    }
    for path, reason in reasons.items():
        for load in (
            images.decode,
            lambda path: images.train_image(str(path), 32, np.random.default_rng(0)),
            lambda path: images.eval_image(path, 32),
        ):
            with pytest.raises(ValueError) as caught:
                load(path)
            message = str(caught.value)
            assert message.startswith(f"cannot decode {path}: ") and reason in message
            assert "\n" not in message
    with pytest.raises(ValueError, match="cannot decode an image of 3 bytes"):
        images.decode(b"abc")
