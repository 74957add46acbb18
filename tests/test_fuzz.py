"""Whatever comes is read right or refused in one line that names the file; nothing else is raised.

Seeded: mutation i of a kind is always the same. Bounded: a kind stops after SECONDS, or at COUNT.
"""

import io
import json
import time

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from data import images, sources, video
from data.tokenizer import load_tokenizer, train_tokenizer
from errors import UserError
from pretrained import names
from pretrained.find import find_weights
from pretrained.load import load_weights
from tests.pretrained.test_load import write_golden

SECONDS, COUNT, LEAST = 1.5, 400, 8  # at least so many, on a busy machine
NASTY = [
    b"",
    b"\x00",
    b'"',
    b"\xff",
    b"\n",
    b"\t",
    b"[",
    b"{",
    b"}",
    b"9" * 40,
    b"NaN",
    b"-1",
    b"e9",
]
NASTY += [b"\xef\xbb\xbf", b"\\ud800", b"null", b"1e999", b"\r", b"\xe2\x80\xa8", b"'"]
VALUES = [None, True, False, 0, -1, 1.5, 2**70, float("nan"), float("inf"), "", "x", [], [1], {}]
VALUES += [{"a": 1}, [[]], "\u2028", "9" * 5000, [0.5, 0.5, 0.5], {"height": 16, "width": 16}]


def mutations(content: bytes, seed: int):
    """Endless copies with a few bytes changed, cut out, put in, doubled, or the end torn off."""
    rng = np.random.default_rng(seed)
    while True:
        data = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at, other = sorted(rng.integers(0, len(data) + 1, 2))
            kind = rng.integers(5)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 9))]
            elif kind == 2:
                data[at:at] = NASTY[rng.integers(len(NASTY))]
            elif kind == 3 and at < len(data):
                data[at] = int(rng.integers(256))
            else:
                data[at:at] = data[at : min(other, at + 64)]
        yield bytes(data)


def edits(content, seed: int):
    """Endless copies of a json value with one value somewhere replaced, removed or added."""
    rng = np.random.default_rng(seed)
    text = json.dumps(content)
    while True:
        copy = json.loads(text)
        node = copy
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = keys[rng.integers(len(keys))]
            inner = node[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
                break
            node = inner
        action = rng.integers(4)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[str(VALUES[rng.integers(len(VALUES))])] = VALUES[rng.integers(len(VALUES))]
        else:
            node[key] = VALUES[rng.integers(len(VALUES))]
        yield json.dumps(copy).encode()


def attack(path, contents, read, judge=lambda content, found: None) -> None:
    """Writes each content and reads it."""
    end, read_count, refused = time.monotonic() + SECONDS, 0, 0
    for i, content in enumerate(contents):
        if i == COUNT or (i >= LEAST and time.monotonic() > end):
            break
        path.write_bytes(content)
        try:
            found = read()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error), (i, str(error))
            named = (path.name, str(path.parent), "images are missing; looked in")
            assert any(name in str(error) for name in named), (i, str(error))
        except Exception as error:
            raise AssertionError(f"mutation {i}: {type(error).__name__}: {error}") from error
        else:
            read_count += 1
            judge(content, found)
    assert read_count + refused


def pattern(mode="RGB"):
    y, x = np.mgrid[0:1.0:40j, 0:1.0:56j]
    pixels = np.uint8(127 * (np.stack([np.sin(9 * x + y), np.cos(7 * x), x * y], -1) + 1))
    return Image.fromarray(pixels).convert(mode)


FORMATS = {"JPEG": "RGB", "PNG": "RGB", "GIF": "P", "WEBP": "RGB", "TIFF": "RGB", "BMP": "RGB"}
FORMATS |= {"AVIF": "RGB", "PPM": "L", "TGA": "RGB", "ICO": "RGB"}


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it finds odd in a file
@pytest.mark.parametrize("kind", FORMATS)
def test_images(kind, tmp_path):
    stream = io.BytesIO()
    pattern(FORMATS[kind]).save(stream, kind)
    path = tmp_path / f"a.{kind.lower()}"

    def judge(content, found):
        assert found.shape == (32, 32, 3) and found.dtype == np.uint8

    attack(path, mutations(stream.getvalue(), 0), lambda: images.eval_image(path, 32), judge)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_the_rest_of_a_torn_image_is_not_made_up(kind, tmp_path):
    stream = io.BytesIO()
    pattern(FORMATS[kind]).save(stream, kind)
    content, path = stream.getvalue(), tmp_path / "a.img"
    whole = np.asarray(images.decode(content))

    def judge(_, found):
        np.testing.assert_array_equal(np.asarray(found), whole)

    ends = np.linspace(1, len(content) - 1, 60).astype(int)
    attack(path, (content[:end] for end in ends), lambda: images.decode(path), judge)


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(4):
        (tmp_path / "images" / f"{i}.jpg").touch()
    return [{"image": f"{i}.jpg", "captions": [f"a dog {i}"], "negatives": ["x"]} for i in range(4)]


def records(source):
    found = [source[i] for i in range(len(source))]
    for record in found:
        for text in record["captions"]:
            text.encode()
            assert text.strip() and len(text) < 6000
    return found


def test_tables(tmp_path, rows):
    lines = [f'a "dog" {i}\timages/{i}.jpg\t[\'a mat "{i}"\']' for i in range(4)]
    quoted = ['"' + line.replace('"', '""').replace("\t", '"\t"') + '"' for line in lines]
    heading = "title\tfilepath\tneg_caption\n"
    path = tmp_path / "t.tsv"
    for seed, body in enumerate((lines, quoted)):
        content = (heading + "\n".join(body) + "\n").encode()

        def judge(content, found):
            assert len(found) <= content.count(b"\n") + 1, "rows are made of lines"
            assert not any("images/" in text for record in found for text in record["captions"])

        attack(
            path,
            mutations(content, seed),
            lambda: records(sources.load("negclip", tmp_path, annotations=path)),
            judge,
        )


def test_json(tmp_path, rows):
    path = tmp_path / "captions.json"

    def read():
        return records(sources.load("captions", tmp_path))

    attack(path, edits(rows, 0), read)
    attack(path, mutations(json.dumps(rows).encode(), 1), read)


@pytest.mark.parametrize("file", ["train.csv", "classes.json"])
def test_lists_of_videos(tmp_path, file):
    pytest.importorskip("av")
    (tmp_path / "a.avi").touch()
    contents = {"train.csv": "a.avi,1\na.avi 0\n", "classes.json": '{"0": "run", "1": "jump: up"}'}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    path = tmp_path / file
    attack(path, mutations(contents[file].encode(), 2), lambda: video.load(tmp_path))


CONFIGS = [("gelu", "config.json"), ("gelu", "preprocessor_config.json")]
CONFIGS += [("siglip", "preprocessor_config.json"), ("open_clip_gelu", "open_clip_config.json")]


@pytest.mark.parametrize("name, file", CONFIGS)
def test_configs(tmp_path, name, file):
    write_golden(name, tmp_path)
    path = tmp_path / file

    def read():
        config = find_weights(tmp_path).config
        names.parameter_shapes(config)
        return config

    def judge(_, config):
        mean, std = (np.array(v, float) for v in (config.vision.mean, config.vision.std))
        assert np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
        assert (config.vision.resize_to or config.vision.image_size) >= config.vision.image_size

    content = path.read_bytes()
    attack(path, edits(json.loads(content), 3), read, judge)
    attack(path, mutations(content, 4), read, judge)


def test_tokenizers(tmp_path):
    folder = tmp_path / "t"
    train_tokenizer(["a dog on a mat"], 520).save(folder)
    path = folder / "tokenizer.json"

    def judge(_, tokenizer):
        ids, _ = tokenizer.encode(["a dog", ""], 8)
        assert (ids < tokenizer.vocab_size).all() and (ids == tokenizer.eos_token_id).any(1).all()

    content = path.read_bytes()
    attack(path, mutations(content, 5), lambda: load_tokenizer(folder), judge)
    attack(path, edits(json.loads(content), 6), lambda: load_tokenizer(folder), judge)


def test_safetensors(tmp_path):
    config, tensors = write_golden("gelu", tmp_path)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"logit_scale": np.zeros((), np.float32)}, tmp_path / "one")
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")

    def headers():
        for head in mutations(whole[:size], 7):
            yield head + whole[size:]

    attack(path, headers(), lambda: load_weights(tmp_path).params)


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_videos(kind, tmp_path):
    pytest.importorskip("av")
    from tests.data.test_video import write

    path = tmp_path / f"a.{kind}"
    content = write(tmp_path / f"whole.{kind}", total=12).read_bytes()

    def judge(_, clips):
        assert clips.shape == (1, 2, 16, 16, 3) and clips.dtype == np.uint8

    attack(
        path,
        mutations(content, 8),
        lambda: video.test_clips(str(path), size=16, num_frames=2, frame_stride=1, views=1),
        judge,
    )
