"""A teacher of another shape: what it reads, what it sees, and what few bits cost it."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from flax.core import meta
from ml_collections import ConfigDict

from data import pipeline, video
from data.moving import Moving
from data.tokenizer import load_tokenizer, train_tokenizer
from data.world import World
from errors import UserError
from methods import base as methods
from models import zoo
from models.clip import CLIP, init_params
from pretrained.find import find_weights
from pretrained.load import load_weights, save_weights
from pretrained.teacher import open_teacher
from tests.pretrained.goldens import GOLDEN, read_golden
from tpu_configs import base
from training import mesh as meshes

OPTIONS = base.get_config().teacher.to_dict() | {"from": base.WORLD_WEIGHTS}
CAPTIONS = ["two dogs run on the grass", "a man in a red shirt rides a bike", "the cat sleeps"]


def opened(**options):
    return open_teacher("teacher", OPTIONS | options, zoo.compute("float32"), video=False)


def student(image_size=48, vocab_size=600):
    return zoo.build("tiny", vocab_size=vocab_size, eos_token_id=599, image_size=image_size).config


@pytest.fixture(scope="module")
def batch():
    """A batch of the world for a student of 32 pixels with a tokenizer of its own."""
    source = World(length=8, size=48, num_negatives=2)
    teacher, tokenizer = opened(), train_tokenizer(CAPTIONS, 600)
    reads = teacher.reads(student(image_size=32), tokenizer.fingerprint())
    assert reads.keys() == {"tokenizer", "context_length", "causal", "image_size"}
    batches = pipeline.train_batches(
        source,
        tokenizer=tokenizer,
        batch_size=8,
        seed=0,
        image_size=32,
        crop_scale=(1.0, 1.0),
        text_rows=(0.5, 1.0),
        shards=4,
        num_negatives=2,
        readers={"teacher": reads},
    )
    return next(batches)


def by_hand(batch, weights=base.WORLD_WEIGHTS) -> dict:
    """Embeddings of weights, of what the batch has for a model of theirs."""
    loaded = load_weights(weights)
    model = CLIP(loaded.config)
    run = functools.partial(model.apply, {"params": loaded.params})
    return {
        "image": run(batch["teacher/image"], method="encode_image"),
        "text": run(batch["teacher/text"], method="encode_text"),
        "negatives": run(batch["teacher/negatives"], method="encode_text"),
    }


@pytest.fixture(scope="module")
def expected(batch):
    return by_hand(batch)


def test_a_batch_has_the_teachers_own_ids_and_images(batch):
    assert batch["image"].shape == (8, 32, 32, 3)
    assert batch["teacher/image"].shape == (8, 48, 48, 3)
    shipped = load_tokenizer(base.WORLD_WEIGHTS)
    source = World(length=8, size=48, num_negatives=2)
    captions = {caption for i in range(8) for caption in source[i]["captions"]}
    known = {tuple(ids) for ids in shipped.encode(sorted(captions), 32)[0]}
    assert {tuple(ids) for ids in batch["teacher/text"]} <= known
    assert "teacher/negatives_valid" not in batch and batch["negatives_valid"].shape == (8, 2)
    # The same crop, coarser.
    small = batch["teacher/image"].reshape(8, 24, 2, 24, 2, 3).mean(axis=(2, 4))
    coarse = batch["image"].astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(coarse, small.mean(axis=(1, 2)), atol=3)


def test_who_reads_as_the_student_does_has_no_fields_of_its_own():
    shipped = load_tokenizer(base.WORLD_WEIGHTS)
    like = zoo.build("world", vocab_size=shipped.vocab_size, eos_token_id=shipped.eos_token_id)
    assert opened().reads(like.config, shipped.fingerprint()) == {}
    reader = opened().reads(student(image_size=64), shipped.fingerprint())
    assert reader["image_size"] == 48 and reader["context_length"] == 32


# Largest deviation of an embedding of unit norm: rounding to 8 and to about 7 bits.
@pytest.mark.parametrize("dtype, error", [("float32", 1e-5), ("bfloat16", 2e-2), ("int8", 6e-2)])
def test_it_sees_the_batch_as_its_weights_do(dtype, error, batch, expected):
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    layout = functools.partial(meshes.tree_shardings, mesh)
    teacher = opened(dtype=dtype)
    params, shapes = teacher.load(layout), teacher.shapes(layout)
    jax.tree.map(
        lambda leaf, shape: (
            (leaf.shape, leaf.dtype, leaf.sharding.spec)
            == (shape.shape, shape.dtype, shape.sharding.spec)
            or pytest.fail(f"{leaf.shape} {leaf.dtype} is not {shape}")
        ),
        params,
        shapes,
    )
    seen = jax.jit(teacher.embedder())(params, meshes.put_batch(mesh, batch))
    for field, wanted in expected.items():
        distance = np.abs(np.asarray(getattr(seen, field)) - wanted).max()
        assert distance < error and (dtype == "float32" or distance > error / 100)


def test_few_bits_take_a_half_and_a_quarter_of_the_memory():
    mesh = meshes.make_mesh()
    layout = functools.partial(meshes.tree_shardings, mesh)

    def size(dtype):
        leaves = jax.tree.leaves(opened(dtype=dtype).shapes(layout))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    whole = size("float32")
    assert size("bfloat16") < 0.52 * whole
    assert size("int8") < 0.32 * whole  # the tables stay in bfloat16


@pytest.fixture
def siglip(tmp_path):
    """A folder with a small random SigLIP of its own vocabulary."""
    config, _, _ = read_golden("siglip")
    tokenizer = shutil.copytree(GOLDEN / "siglip_tokenizer", tmp_path / "siglip")
    text = dataclasses.replace(config.text, vocab_size=load_tokenizer(tokenizer).vocab_size)
    config = dataclasses.replace(config, text=text)
    params = meta.unbox(init_params(CLIP(config), jax.random.key(0)))
    save_weights(tmp_path / "teacher", config, params, "hf", tokenizer=tokenizer)
    return tmp_path / "teacher"


def test_siglip_teaches_with_its_own_words(siglip):
    teacher, tokenizer = opened(**{"from": str(siglip)}), train_tokenizer(CAPTIONS, 600)
    source = World(length=8, size=48, num_negatives=2)
    batches = pipeline.train_batches(
        source, tokenizer=tokenizer, batch_size=8, seed=0, image_size=32, crop_scale=(1.0, 1.0),
        text_rows=(0.5, 1.0), num_negatives=2,
        readers={"teacher": teacher.reads(student(image_size=32), tokenizer.fingerprint())},
    )  # fmt: skip
    batch = next(batches)
    captions = [caption for i in range(8) for caption in source[i]["captions"]]
    length = teacher.model.config.text.context_length
    known = {tuple(ids) for ids in teacher.tokenizer.encode(captions, length)[0]}
    assert {tuple(ids) for ids in batch["teacher/text"]} <= known
    layout = functools.partial(meshes.tree_shardings, meshes.make_mesh(devices=jax.devices()[:1]))
    seen = jax.jit(teacher.embedder())(teacher.load(layout), batch)
    for field, wanted in by_hand(batch, siglip).items():
        np.testing.assert_allclose(getattr(seen, field), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "config.teacher.dtype is 'int4'; there are: float32, bfloat16, int8"),
        ({"from": "nowhere"}, "nowhere: no such file"),
    ],
)
def test_a_teacher_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        opened(**options)


@pytest.mark.parametrize(
    ("method", "options", "names", "message"),
    [
        ("degla", {}, ["teacher"], "moving average.*teacher=frozen"),
        ("clip", {}, ["teacher"], "no teacher"),
        ("degla", {"teacher": "frozen"}, ["large"], "one teacher"),
    ],
)
def test_a_method_without_a_place_for_it(method, options, names, message):
    with pytest.raises(UserError, match=message):
        methods.with_external_teachers(methods.load(method, ConfigDict(options)), names)


def test_weights_of_a_teacher_are_found_as_any():
    assert opened().source == find_weights(base.WORLD_WEIGHTS)


def test_it_sees_clips_and_reads_classes_of_its_own():
    teacher = open_teacher("teacher", OPTIONS, zoo.compute("float32"), video=True)
    source = Moving(length=8)
    tokenizer = train_tokenizer(video.class_texts(source, "a picture of {}") * 3, 600)
    reads = teacher.reads(student(image_size=32), tokenizer.fingerprint())
    batches = video.train_batches(
        source,
        tokenizer=tokenizer,
        batch_size=4,
        seed=0,
        image_size=32,
        jitter=(32, 36),
        frame_stride=1,
        num_frames=2,
        readers={"teacher": reads},
    )
    batch = next(batches)
    loaded = load_weights(base.WORLD_WEIGHTS)
    seen = teacher.embedder()(loaded.params, {n: x for n, x in batch.items() if n != "short"})
    run = functools.partial(CLIP(loaded.config).apply, {"params": loaded.params})
    frames = run(batch["teacher/video"].reshape(8, 48, 48, 3), method="encode_image")
    np.testing.assert_allclose(seen.image.reshape(8, -1), frames, atol=1e-5)
    assert len(batch["teacher/class_text"]) == len(seen.text) == len(source.classes)
    assert batch["class_text"].max() < 600 < batch["teacher/class_text"].max()
