"""The model apart from its numbers' origin: layouts, dtypes, padding, rematerialisation, errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import meta

from data import packing
from models.clip import CLIP, CLIPConfig, embedder, init_params
from models.transformer import REMAT_POLICIES, Compute, TextConfig, VisionConfig
from training import mesh as meshes

VISION = VisionConfig(width=16, layers=2, heads=2, patch_size=4, image_size=8, mlp_width=32)
TEXT = TextConfig(width=16, layers=2, heads=2, mlp_width=32, vocab_size=50, eos_token_id=49)
CONFIG = CLIPConfig(embed_dim=8, vision=VISION, text=TEXT)
SIGLIP = CLIPConfig(
    embed_dim=16,
    vision=dataclasses.replace(VISION, pool="map", activation="gelu_tanh", mean=(0.5,) * 3),
    text=dataclasses.replace(TEXT, pool="last", context_length=12),
    logit_bias_init=-10.0,
)
FLOAT32 = Compute()


@functools.cache
def boxed(config):
    return jax.jit(functools.partial(init_params, CLIP(config)))(jax.random.key(0))


def params(config=CONFIG):
    return meta.unbox(boxed(config))


def batch(n=8, length=20, negatives=2, vocab_size=50):
    """uint8 images and texts that end at a random place with padding of 0 behind."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)
    text = random.integers(1, vocab_size - 1, (n, 1 + negatives, length)).astype(np.int32)
    end = random.integers(3, 12, (n, 1 + negatives, 1))
    position = np.arange(length)
    text = np.where(position < end, text, np.where(position == end, vocab_size - 1, 0))
    return image, text[:, 0].astype(np.int32), text[:, 1:].astype(np.int32)


@functools.cache
def compiled(config=CONFIG, compute=FLOAT32, method=None):
    """(params, *arrays) -> outputs."""
    model = CLIP(config, compute)
    return jax.jit(lambda values, *args: model.apply({"params": values}, *args, method=method))


def gradients(values, args, compute=FLOAT32):
    """(a scalar in which every output has weight, its gradients)."""

    def loss(values):
        out = CLIP(CONFIG, compute).apply({"params": values}, *args)
        embeddings = jnp.concatenate([out.image, out.text, out.negatives.reshape(-1, 8)])
        weight = jax.random.normal(jax.random.key(1), embeddings.shape)
        return jnp.mean(weight * embeddings) * out.logit_scale

    return jax.jit(jax.value_and_grad(loss))(values)


@functools.cache
def reference_gradients():
    return gradients(params(), batch())


def assert_trees_close(actual, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


def test_outputs_are_unit_norm_float32_and_sample_major():
    image, text, negatives = batch()
    out = compiled()(params(), image, text, negatives)
    assert out.image.shape == out.text.shape == (8, 8) and out.negatives.shape == (8, 2, 8)
    for x in (out.image, out.text, out.negatives):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(out.logit_scale, 1 / 0.07, rtol=1e-6)
    assert out.logit_bias is None
    encode_text = functools.partial(compiled(method="encode_text"), params())
    np.testing.assert_allclose(out.text, encode_text(text), atol=1e-6)
    np.testing.assert_allclose(out.negatives, encode_text(negatives), atol=1e-6)


def test_unrolled_layers_give_identical_numbers():
    image, text, negatives = batch()
    scanned, unrolled = (
        compiled(compute=Compute(unroll_layers=unroll))(params(), image, text, negatives)
        for unroll in (False, True)
    )
    assert_trees_close(unrolled, scanned, rtol=0, atol=1e-7)


def test_unrolling_does_not_change_the_parameters():
    unrolled = CLIP(CONFIG, Compute(unroll_layers=True))
    shapes = jax.eval_shape(functools.partial(init_params, unrolled), jax.random.key(0))
    assert jax.tree.map(jnp.shape, meta.unbox(shapes)) == jax.tree.map(jnp.shape, params())


@pytest.mark.parametrize(
    "remat, unroll", [("full", False), ("dots", False), ("dots_no_batch", False), ("full", True)]
)
def test_rematerialisation_changes_no_gradient(remat, unroll):
    value, grads = reference_gradients()
    compute = Compute(remat=remat, unroll_layers=unroll)
    actual, actual_grads = gradients(params(), batch(), compute)
    np.testing.assert_allclose(actual, value, rtol=1e-6)
    assert_trees_close(actual_grads, grads, rtol=1e-4, atol=1e-6)


def test_every_rematerialisation_policy_is_tested():
    assert set(REMAT_POLICIES) == {"none", "full", "dots", "dots_no_batch"}


def test_bfloat16_keeps_float32_parameters_and_outputs():
    low = Compute(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda key: init_params(CLIP(CONFIG, low), key), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    low_out, out = (compiled(compute=c)(params(), *batch()) for c in (low, FLOAT32))
    assert {leaf.dtype for leaf in jax.tree.leaves(low_out)} == {jnp.dtype("float32")}
    assert_trees_close(low_out, out, atol=0.03)
    # Else the products were not made in bfloat16 at all.
    assert np.abs(low_out.image - out.image).max() > 1e-5


@pytest.mark.parametrize("config", [CONFIG, SIGLIP])
def test_every_parameter_names_its_axes(config):
    flat = traverse_util.flatten_dict(boxed(config), sep="/")
    for path, leaf in flat.items():
        if np.ndim(meta.unbox(leaf)):
            names = leaf.names
            assert len(names) == meta.unbox(leaf).ndim, path
            meshes.partition_spec(names)
            # The only axes without a name are the query's two of length 1.
            assert None not in names or path == "vision/head/probe", path
        if "/blocks/" in path:
            assert leaf.names[0] == "layers", path


def test_cutting_the_padding_is_exact():
    _, text, _ = batch(length=77)
    encode = functools.partial(compiled(method="encode_text"), params())
    np.testing.assert_allclose(encode(text[:, :16]), encode(text), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 4])
def test_packing_the_texts_changes_nothing(shards):
    image, text, negatives = batch()
    texts = np.concatenate([text[:, None], negatives], axis=1).reshape(shards, -1, 20)
    slots, starts = packing.pack(texts, 20, lambda rows: rows + 1)
    assert slots.shape[1] < texts.shape[1]
    packed = gradients(params(), (image, text, negatives, (slots, starts)))
    assert_trees_close(packed, gradients(params(), (image, text, negatives)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        compiled()(params(), image, text, negatives, (slots, starts)).negatives,
        compiled()(params(), image, text, negatives).negatives,
        atol=1e-6,
    )


def test_what_follows_the_end_token_has_no_influence():
    _, text, _ = batch()
    encode = functools.partial(compiled(method="encode_text"), params())
    behind = np.cumsum(text == 49, axis=1) - (text == 49) > 0
    # transformers pads with the end token, open_clip with 0.
    padded = np.where(behind, 49, text)
    np.testing.assert_array_equal(encode(padded), encode(text))
    first_word = text.copy()
    first_word[:, 0] = (first_word[:, 0] + 1) % 49
    assert (np.abs(encode(first_word) - encode(text)).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("config", [CONFIG, SIGLIP])
def test_uint8_images_are_normalised_on_the_device(config):
    image, _, _ = batch()
    encode = functools.partial(compiled(config, method="encode_image"), params(config))
    vision = config.vision
    normalised = (image / 255.0 - np.array(vision.mean)) / np.array(vision.std)
    np.testing.assert_allclose(encode(image), encode(normalised.astype(np.float32)), atol=1e-6)


def test_negatives_do_not_change_the_captions():
    image, text, negatives = batch()
    with_them = compiled()(params(), image, text, negatives)
    without = compiled()(params(), image, text)
    assert without.negatives is None
    assert_trees_close(without, with_them.replace(negatives=None), atol=1e-6)


def test_siglip_sees_its_padding_and_demands_it():
    encode = functools.partial(compiled(SIGLIP, method="encode_text"), params(SIGLIP))
    _, text, _ = batch(length=12)
    changed = text.copy()
    changed[:, 0] = (changed[:, 0] + 1) % 49
    assert (np.abs(encode(changed) - encode(text)).max(axis=1) > 1e-4).all()
    with pytest.raises(ValueError, match="texts of 9 tokens.*exactly 12"):
        encode(text[:, :9])


def test_sizes_that_do_not_fit_are_named():
    image, text, _ = batch()
    with pytest.raises(ValueError, match=r"\(8, 4, 3\).*\(8, 8, 3\)"):
        compiled()(params(), image[:, :, :4], text)
    with pytest.raises(ValueError, match="78 tokens.*at most 77"):
        compiled()(params(), image, np.zeros((8, 78), np.int32))


def test_sharded_gradients_equal_those_of_one_device():
    mesh = meshes.make_mesh(2, 2, 2)
    values = jax.device_put(params(), meshes.tree_shardings(mesh, boxed(CONFIG)))
    kernel = values["vision"]["transformer"]["blocks"]["fc"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 4
    args = jax.device_put(batch(), meshes.batch_sharding(mesh))
    value, grads = gradients(values, args, Compute(constrain=meshes.constraint(mesh)))
    expected, expected_grads = reference_gradients()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_trees_close(grads, expected_grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, SIGLIP])
def test_sharded_and_unrolled_outputs_equal_those_of_one_device(config):
    mesh = meshes.make_mesh(2, 2, 2)
    arrays = batch(length=12)
    values = jax.device_put(params(config), meshes.tree_shardings(mesh, boxed(config)))
    compute = Compute(constrain=meshes.constraint(mesh), unroll_layers=True)
    args = jax.device_put(arrays, meshes.batch_sharding(mesh))
    actual = compiled(config, compute)(values, *args)
    assert_trees_close(actual, compiled(config)(params(config), *arrays), atol=1e-5)


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_a_text_without_an_end_token_has_no_embedding_packed_or_not(shards):
    _, text, _ = batch()
    text[3] = np.where(text[3] == 49, 48, text[3])
    packing_of = ()
    if shards:
        packing_of = (packing.pack(text.reshape(shards, -1, 20), 20, lambda rows: rows),)
    embeddings = compiled(method="encode_text")(params(), text, *packing_of)
    assert np.isnan(embeddings[3]).all()
    assert np.isfinite(np.delete(embeddings, 3, axis=0)).all()


def test_dense_features_are_pooled_as_the_embeddings_are():
    image, text, negatives = batch()
    needs = ("image_tokens", "text_tokens")
    out = jax.jit(lambda *args: CLIP(CONFIG).apply({"params": params()}, *args, needs=needs))(
        image, text, negatives
    )
    pooled = compiled()(params(), image, text, negatives)
    assert out.image_tokens.shape == (8, 4, 8)
    assert out.text_tokens.features.shape == (8, 20, 8)
    assert out.negative_tokens.features.shape == (8, 2, 20, 8)
    for tokens, ids, expected in (
        (out.text_tokens, text, pooled.text),
        (out.negative_tokens, negatives, pooled.negatives),
    ):
        end = np.argmax(ids == 49, axis=-1)
        np.testing.assert_array_equal(tokens.valid, np.arange(20) <= end[..., None])
        at_end = np.take_along_axis(tokens.features, end[..., None, None], axis=-2)[..., 0, :]
        unit = at_end / np.linalg.norm(at_end, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit, expected, atol=1e-6)
    assert_trees_close(
        out.replace(image_tokens=None, text_tokens=None, negative_tokens=None), pooled, atol=1e-6
    )


def test_patches_are_in_place():
    """Without position embeddings and attention's out product, a patch depends on itself alone."""
    values = jax.tree.map(jnp.copy, params())
    values["vision"]["transformer"]["blocks"]["attn"]["out"]["kernel"] *= 0
    tokens = jax.jit(
        lambda image: CLIP(CONFIG).apply(
            {"params": values},
            image,
            dense=True,
            method=lambda m, x, dense: m.vision(x, dense=dense),
        )[1]
    )
    image, _, _ = batch()
    changed = image.copy()
    changed[:, :4, 4:] = 255 - changed[:, :4, 4:]  # the second of 2 x 2 patches
    moved = np.abs(tokens(changed) - tokens(image)).max(axis=(0, 2))
    assert moved[1] > 1e-3 and np.delete(moved, 1).max() == 0


@pytest.mark.parametrize("shards", [1, 4])
def test_packing_changes_no_token(shards):
    image, text, negatives = batch()
    texts = np.concatenate([text[:, None], negatives], axis=1).reshape(shards, -1, 20)
    rows = packing.pack(texts, 20, lambda rows: rows)

    def dense(packing_of):
        return CLIP(CONFIG).apply(
            {"params": params()}, image, text, negatives, packing_of, needs=("text_tokens",)
        )

    packed, plain = jax.jit(dense)(rows), jax.jit(dense)(None)
    for a, b in (
        (packed.text_tokens, plain.text_tokens),
        (packed.negative_tokens, plain.negative_tokens),
    ):
        np.testing.assert_array_equal(a.valid, b.valid)
        valid = np.asarray(b.valid)
        np.testing.assert_allclose(a.features[valid], b.features[valid], atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_further_texts_are_embedded_as_captions_are(packed):
    image, text, negatives = batch()
    texts = {"units": np.stack([negatives, negatives[:, ::-1]], axis=1), "b": text[:, None]}
    order = [text[:, None], negatives, texts["b"], texts["units"].reshape(8, 4, 20)]
    rows = np.concatenate(order, axis=1).reshape(2, -1, 20)
    rows = packing.pack(rows, 20, lambda rows: rows) if packed else None
    out = jax.jit(
        lambda values: CLIP(CONFIG).apply({"params": values}, image, text, negatives, rows, texts)
    )(params())
    np.testing.assert_allclose(out.texts["b"][:, 0], out.text, atol=1e-6)
    np.testing.assert_allclose(out.texts["units"][:, 0], out.negatives, atol=1e-6)
    np.testing.assert_allclose(out.texts["units"][:, 1], out.negatives[:, ::-1], atol=1e-6)


def test_siglip_hands_out_its_tokens():
    image, text, _ = batch(length=12)
    model = CLIP(SIGLIP)
    out = model.apply(
        {"params": params(SIGLIP)}, image, text, needs=("image_tokens", "text_tokens")
    )
    assert out.image_tokens.shape == (8, 4, 16) and out.text_tokens.features.shape == (8, 12, 16)
    assert out.text_tokens.valid.all()
    last = np.asarray(out.text_tokens.features)[:, -1]
    last = last / np.linalg.norm(last, axis=-1, keepdims=True)
    np.testing.assert_allclose(last, out.text, atol=1e-6)


def test_what_a_model_does_not_provide_is_named():
    with pytest.raises(
        ValueError, match="needs depth, and a CLIP provides only image_tokens, text"
    ):
        embedder(CLIP(CONFIG), ("depth", "image_tokens"))
