import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from data import images
from errors import UserError
from tests.golden import make_processors

GOLDEN = Path(__file__).parents[1] / "golden" / "processors.npz"


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


@pytest.mark.parametrize("width, height", make_processors.SIZES)
def test_the_corner_is_torchvisions_or_transformers(width, height):
    picture, size = make_processors.picture(width, height), make_processors.SIZE
    with np.load(GOLDEN) as golden:
        expected = golden[f"torchvision/{width}x{height}"]
    np.testing.assert_array_equal(images.eval_image(picture, size, corner="nearest"), expected)
    edges = {"shortest_edge": size}
    square = {"height": size, "width": size}
    processor = CLIPImageProcessorPil(
        size=edges, crop_size=square, do_normalize=False, do_rescale=False
    )
    expected = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(images.eval_image(picture, size, corner="down"), expected)


@pytest.mark.parametrize("size", [(2000, 4), (3, 1500)])
def test_of_a_strip_only_the_crop_is_enlarged(size, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    whole = images.eval_image(pixels, 64).astype(int)
    monkeypatch.setattr(images, "_MOST_ENLARGED", 0)
    part = images.eval_image(pixels, 64)
    assert np.abs(part - whole).max() <= 4 and np.abs(part - whole).mean() < 0.5


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


def tiff(values, **tags):
    """A little-endian TIFF of one grey channel, as other programs write it."""
    values = np.asarray(values)
    content = values.tobytes()
    entries = {
        256: (4, values.shape[1]),
        257: (4, values.shape[0]),
        258: (3, 8 * values.itemsize),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        278: (4, values.shape[0]),
        279: (4, len(content)),
        339: (3, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]),
    } | {int(tag[1:]): (3, value) for tag, value in tags.items()}
    directory = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I" if kind == 4 else "<H2x", value)
        for tag, (kind, value) in sorted(entries.items())
    )
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    return head + content + struct.pack("<H", len(entries)) + directory + bytes(4)


GREY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))


def saved(image, kind):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


WIDE = {
    "tiff 16": lambda: tiff(GREY.astype("<u2") * 257),
    "tiff 16, white is 0": lambda: tiff((255 - GREY).astype("<u2") * 257, t262=0),
    "png 16": lambda: saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "pgm 16": lambda: b"P5 64 64 65535\n" + (GREY * np.uint16(257)).astype(">u2").tobytes(),
    "pgm 12": lambda: b"P5 64 64 4095\n" + (GREY * np.uint16(16)).astype(">u2").tobytes(),
    "jpeg 2000": lambda: saved(Image.fromarray(GREY.astype(np.uint16) * 257), "JPEG2000"),
    "PIL I;16B": lambda: Image.frombytes(
        "I;16B", (64, 64), (GREY * np.uint16(257)).astype(">u2").tobytes()
    ),
    "uint16": lambda: GREY.astype(np.uint16) * 257,
    "uint16, big-endian": lambda: (GREY * np.uint16(257)).astype(">u2"),
    "uint16, colour": lambda: np.stack([GREY.astype(np.uint16) * 257] * 3, -1),
    "uint8, one channel": lambda: GREY[..., None],
    "premultiplied": lambda: Image.fromarray(GREY).convert("RGBA").convert("RGBa"),
}


@pytest.mark.parametrize("kind", WIDE)
def test_greys_are_scaled_by_what_their_mode_says(kind):
    difference = np.asarray(images.decode(WIDE[kind]())).astype(int) - GREY[..., None]
    assert np.abs(difference).max() <= 1


def test_a_big_endian_tiff_is_the_picture_that_it_is(shared):
    folder = shared / "data/cases/images"
    big, little = (images.decode(folder / f"gray16{end}") for end in ("be.tif", ".png"))
    np.testing.assert_array_equal(big, little)
    assert 20 < np.asarray(big).std()


def test_twelve_bits_are_not_taken_for_sixteen():
    values = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (2, 1))  # 64 x 2
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    content = tiff(packed.reshape(2, -1).astype(np.uint8), t258=12)
    content = content.replace(
        struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 64)
    )
    found = np.asarray(images.decode(content))[..., 0]
    assert np.abs(found.astype(int) - values // 16).max() <= 1


UNSAID = {
    "tiff of 32-bit integers": lambda: tiff(GREY.astype("<i4")),
    "tiff of unsigned 32-bit integers": lambda: tiff(GREY.astype("<u4")),
    "tiff of floats": lambda: tiff(GREY.astype("<f4") / 255),
    "PIL I": lambda: Image.fromarray(GREY.astype(np.int32)),
    "PIL F": lambda: Image.fromarray(GREY.astype(np.float32)),
    **{
        f"array of {np.dtype(dtype)}": lambda dtype=dtype: np.stack([GREY.astype(dtype)] * 3, -1)
        for dtype in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u4", "u8", "c8", "O", "S3", "U3")
    },
    "channels first": lambda: np.stack([GREY] * 3),
    "five channels": lambda: np.stack([GREY] * 5, -1),
    "no pixels": lambda: np.zeros((0, 4, 3), np.uint8),
    "a row": lambda: GREY[0],
    "none": lambda: None,
    "a number": lambda: 3.5,
}


@pytest.mark.parametrize("kind", UNSAID)
def test_pixels_whose_white_is_not_said_are_refused(kind):
    with pytest.raises(UserError, match="^cannot decode .*: .") as error:
        images.decode(UNSAID[kind]())
    assert "\n" not in str(error.value)


def test_black_and_white_arrays():
    found = np.asarray(images.decode(GREY > 100))
    assert (
        set(np.unique(found)) == {0, 255} and (found[..., 0] == 255).mean() == (GREY > 100).mean()
    )


def png(width, height, stated=None):
    """A white image that costs next to nothing to store; stated: the size that its head states."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    rows = zlib.compress((b"\0" + b"\xff" * (-(-width // 8))) * height, 9)
    header = struct.pack(">IIBBBBB", *(stated or (width, height)), 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )


@pytest.mark.parametrize("size", [(30_000, 4), (4, 30_000), (60_000, 1), (1, 1)])
def test_strips_take_little_memory(size, tmp_path):
    path = tmp_path / "strip.png"
    path.write_bytes(png(*size))
    program = (
        "import resource, sys; from data import images\n"
        "limit = 2**20 * 700; resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
        "import numpy as np\n"
        "rng, path = np.random.default_rng(0), sys.argv[1]\n"
        "for found in (images.eval_image(path, 224), images.train_image(path, 224, rng)):\n"
        "    assert found.shape == (224, 224, 3) and (found == 255).all()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=Path(images.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("size", [(10_000, 10_000), (40_000, 40_000), (90_000_000, 1)])
def test_bombs_are_refused_with_their_file(size, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(1, 1, stated=size))
    for load in (images.decode, lambda path: images.eval_image(path, 32)):
        with pytest.raises(UserError, match="cannot decode .*bomb.png: it has more than 89,"):
            load(path)


@pytest.mark.parametrize(
    "error", [RuntimeError("bad"), MemoryError(), KeyError("a\nb"), IndexError()]
)
def test_whatever_a_decoder_raises_names_the_file(photograph, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(UserError, match=f"^cannot decode {photograph}: .") as caught:
        images.decode(photograph)
    assert "\n" not in str(caught.value)


def test_a_damaged_avif_is_one_clear_line(pattern, tmp_path):
    path = tmp_path / "cut.avif"
    Image.fromarray(pattern).save(path)
    content = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match="cannot decode .*cut.avif: "):
            images.decode(path)


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
