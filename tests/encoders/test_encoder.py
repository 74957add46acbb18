import numpy as np
import pytest
from PIL import Image

from data.array_cache import Cache
from data.decoding import Decoder
from data.images import Crop, decode
from encoders.encoder import Encoder

END = 9
TEXT_LENGTHS = (16, 24, 32, 48, 77)


class Tokenizer:
    """One token a letter, behind it the end token, then zeros."""

    eos_token_id = END

    def encode(self, texts, context_length):
        ids = np.zeros((len(texts), context_length), np.int32)
        for row, text in zip(ids, texts, strict=True):
            tokens = [1 + ord(letter) % 7 for letter in text][: context_length - 1] + [END]
            row[: len(tokens)] = tokens
        return ids, np.array([len(text) >= context_length for text in texts])


def image_vector(pixels):
    return pixels.astype(np.float64).reshape(len(pixels), -1)[:, :64] + 1


def text_vector(ids):
    """Depends on every token up to the first end token, and on its position; on nothing behind."""
    before = np.cumsum(ids == END, axis=1) - (ids == END) == 0
    spread = np.arange(1, 1 + ids.shape[1])[:, None] * np.arange(1, 6)[None]
    return np.einsum("bl,ld->bd", np.where(before, ids, 0), np.cos(spread)) * 7


def load_image(item):
    return np.asarray(decode(item).resize((8, 8)))


class Model:
    """Counts what it is asked for."""

    def __init__(self):
        self.image_batches, self.text_batches = [], []

    def encode_image(self, pixels):
        assert pixels.dtype == np.uint8
        self.image_batches.append(pixels.shape)
        return image_vector(pixels)

    def encode_text(self, ids):
        assert ids.dtype == np.int32
        self.text_batches.append(ids.shape)
        return text_vector(ids)

    def encoder(self, batch_size=4, text_lengths=TEXT_LENGTHS, decoder=None, **options):
        return Encoder(
            self.encode_image,
            self.encode_text,
            decoder=decoder or Decoder(load_image),
            tokenizer=Tokenizer(),
            text_lengths=text_lengths,
            batch_size=batch_size,
            **options,
        )


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(7):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(paths[-1])
    return paths


TEXTS = ["a" * n + "bc" for n in (0, 60, 3, 20, 5, 0, 40, 9, 3)]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_are_those_of_the_model_in_order(photographs):
    encoder = Model().encoder()
    pixels = np.stack([np.asarray(Image.open(path)) for path in photographs])
    np.testing.assert_allclose(encoder.images(photographs), unit(image_vector(pixels)), rtol=1e-5)
    ids = Tokenizer().encode(TEXTS, 77)[0]
    np.testing.assert_allclose(encoder.texts(TEXTS), unit(text_vector(ids)), rtol=1e-5)
    assert encoder.images(photographs).dtype == encoder.texts(TEXTS).dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_neither_order_nor_batch_size_matters(photographs, batch_size):
    order = np.random.default_rng(batch_size).permutation(len(photographs))
    text_order = np.random.default_rng(batch_size).permutation(len(TEXTS))
    reference, encoder = Model().encoder(), Model().encoder(batch_size)
    assert np.array_equal(
        encoder.images([photographs[i] for i in order]), reference.images(photographs)[order]
    )
    assert np.array_equal(
        encoder.texts([TEXTS[i] for i in text_order]), reference.texts(TEXTS)[text_order]
    )


def test_a_long_evaluation_may_be_ended_before_every_batch(photographs):
    model, left = Model(), [None] * 3

    class Stopped(Exception):
        pass

    def check():
        if not left:
            raise Stopped
        left.pop()

    encoder = model.encoder(check=check)
    encoder.images(photographs)
    with pytest.raises(Stopped):
        encoder.texts(TEXTS)
    assert (len(model.image_batches), len(model.text_batches)) == (2, 1)


def test_every_path_and_text_is_encoded_once(photographs):
    model = Model()
    encoder = model.encoder()
    first = encoder.images([photographs[0], str(photographs[0]), photographs[1]])
    assert np.array_equal(first[0], first[1])
    encoder.texts(["ab", "ab", "abc"])
    assert len(model.image_batches) == len(model.text_batches) == 1
    encoder.images(photographs[:2])
    encoder.texts(["abc", "ab"])
    assert len(model.image_batches) == len(model.text_batches) == 1
    encoder.images(photographs[:3])
    assert len(model.image_batches) == 2


def test_images_in_memory_are_never_mistaken_for_each_other(photographs):
    encoder = Model().encoder()
    expected = encoder.images(photographs)
    opened = [Image.open(path).convert("RGB") for path in photographs]
    mixed = [opened[0], photographs[1], np.asarray(opened[2])]
    assert np.array_equal(encoder.images(mixed), expected[:3])
    assert np.array_equal(encoder.images([opened[3], opened[4]]), expected[3:5])


def test_a_shape_is_compiled_once(photographs):
    model = Model()
    encoder = model.encoder()
    encoder.images(photographs)
    encoder.texts(TEXTS)
    assert set(model.image_batches) == {(4, 8, 8, 3)}
    assert {rows for rows, _ in model.text_batches} == {4}
    assert {length for _, length in model.text_batches} <= set(TEXT_LENGTHS)
    # Sorted by length, the four shortest texts go together and cost 16 positions, not 77.
    assert (4, 16) in model.text_batches


def test_a_tower_that_sees_padding_gets_whole_texts():
    model = Model()
    model.encoder(text_lengths=(77,)).texts(["ab", "abc"])
    assert model.text_batches == [(4, 77)]


def test_truncated_texts_are_counted_once():
    encoder = Model().encoder(text_lengths=(16,))
    encoder.texts(["a" * 15, "a" * 16, "b" * 40])
    encoder.texts(["a" * 16])
    assert encoder.truncated == 2


def test_put_lays_out_every_batch(photographs):
    seen = []
    encoder = Model().encoder(put=lambda batch: seen.append(batch.shape) or batch)
    encoder.images(photographs)
    encoder.texts(["ab"])
    assert seen == [(4, 8, 8, 3)] * 2 + [(4, 16)]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_diverged_model_is_an_error_not_a_score_of_zero(value):
    model = Model()
    model.encode_text = lambda ids: np.full((len(ids), 4), value)
    with pytest.raises(ValueError, match="embedding of a text is zero or not finite"):
        model.encoder().texts(["ab"])


def test_what_load_image_raises_is_passed_on(photographs):
    with pytest.raises(ValueError, match="cannot decode .*gone.png"):
        Model().encoder().images([photographs[0].with_name("gone.png")])


def test_images_in_memory_are_encoded_once_too(photographs):
    model = Model()
    encoder = model.encoder()
    arrays = [np.asarray(Image.open(path)) for path in photographs[:2]]
    first = encoder.images([arrays[0], arrays[1], arrays[0].copy()])
    assert np.array_equal(first[0], first[2]) and encoder.encoded["images"] == 2
    encoder.images([photographs[0].read_bytes()] * 2)
    assert encoder.encoded["images"] == 3


def test_a_crop_is_an_image_of_its_own(photographs):
    encoder = Model().encoder()
    crop = Crop(photographs[0], (2, 1, 4, 4))
    whole, part, again = encoder.images([photographs[0], crop, Crop(photographs[0], (2, 1, 4, 4))])
    assert not np.array_equal(whole, part) and np.array_equal(part, again)
    pixels = np.asarray(Image.open(photographs[0]))[1:5, 2:6]
    assert np.array_equal(encoder.images([pixels])[0], part)


def test_a_text_of_several_phrasings_is_their_mean():
    encoder = Model().encoder()
    ab, cd, both = encoder.texts(["ab", "cd", ("ab", "cd")])
    np.testing.assert_allclose(both, unit((ab + cd)[None] / 2)[0], rtol=1e-6)
    assert encoder.encoded["texts"] == 2


def test_worker_processes_decode_the_same(photographs):
    threads, processes = Model(), Model()
    expected = threads.encoder().images(photographs)
    found = processes.encoder(decoder=Decoder(load_image, workers=2)).images(photographs)
    assert np.array_equal(found, expected)


def test_what_one_model_decoded_the_next_gets(photographs):
    loads = []

    def load(item):
        loads.append(item)
        return load_image(item)

    decoder = Decoder(load, keep_bytes=5 * 8 * 8 * 3)  # room for five of the seven
    first, second = (Model().encoder(decoder=decoder).images(photographs) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(loads) == 7 + 2


def test_a_second_run_encodes_nothing_anew(photographs, tmp_path):
    cache = Cache(tmp_path / "cache", "weights A")
    first = Model()
    encoder = first.encoder(cache=cache)
    items = [*photographs, Crop(photographs[0], (0, 0, 4, 4)), np.zeros((8, 8, 3), np.uint8)]
    images, texts = encoder.images(items), encoder.texts(TEXTS)
    # The same content under another name is the same image.
    moved = photographs[0].with_name("moved.png")
    moved.write_bytes(photographs[0].read_bytes())
    second = Model()
    encoder = second.encoder(cache=Cache(tmp_path / "cache", "weights A"))
    assert np.array_equal(encoder.images([*items, moved]), np.concatenate([images, images[:1]]))
    assert np.array_equal(encoder.texts(TEXTS), texts)
    assert not second.image_batches and not second.text_batches
    assert encoder.encoded == {"images": 0, "texts": 0}


def test_other_weights_or_another_file_are_encoded_anew(photographs, tmp_path):
    Model().encoder(cache=Cache(tmp_path, "weights A")).images(photographs)
    other = Model()
    other.encoder(cache=Cache(tmp_path, "weights B")).images(photographs[:2])
    assert len(other.image_batches) == 1
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(photographs[0])
    changed = Model()
    encoder = changed.encoder(cache=Cache(tmp_path, "weights A"))
    expected = unit(image_vector(np.full((1, 8, 8, 3), 7, np.uint8)))
    np.testing.assert_allclose(encoder.images(photographs)[:1], expected, rtol=1e-5)
    assert encoder.encoded["images"] == 1


def test_a_broken_cache_is_named(tmp_path):
    cache = Cache(tmp_path, "weights A")
    cache.path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=f"{cache.path}.*delete it"):
        Model().encoder(cache=cache).texts(["ab"])
