"""Temporal attention against loops over frames, and what makes any CLIP checkpoint load."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from models import zoo
from models.clip import CLIP, init_params
from models.video import ResidualHead, temporal_attention
from training.mesh import constraint, make_mesh

CLIPS, FRAMES, TOKENS, HEADS, DIM = 2, 5, 3, 2, 4
VOCAB, END = 50, 49


def oracle(query, key, value, window, edge):
    """FROSTER's expand_temporal_view in float64, a frame, token and head at a time."""
    shape = (CLIPS, FRAMES, TOKENS, HEADS, DIM)
    query, key, value = (np.asarray(x, np.float64).reshape(shape) for x in (query, key, value))
    out = np.zeros(shape)
    for clip, frame, token, head in np.ndindex(shape[:-1]):
        keys, values = [], []
        for other in range(frame - window, frame + window + 1):
            for seen in range(TOKENS):
                if 0 <= other < FRAMES:
                    keys.append(key[clip, other, seen, head])
                    values.append(value[clip, other, seen, head])
                elif edge == "released":
                    keys.append(np.zeros(DIM))
                    values.append(np.zeros(DIM))
        logits = np.array(keys) @ query[clip, frame, token, head] / np.sqrt(DIM)
        weights = np.exp(logits - logits.max())
        out[clip, frame, token, head] = weights / weights.sum() @ np.array(values)
    return out.reshape(-1, TOKENS, HEADS, DIM)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(CLIPS * FRAMES, TOKENS, HEADS, DIM)) for _ in range(4)]


@pytest.mark.parametrize("edge", ["released", "masked"])
@pytest.mark.parametrize("window", [0, 1, 2, 3])
def test_temporal_attention_is_the_oracles(window, edge):
    *qkv, weight = inputs()

    def ours(qkv):
        options = dict(num_frames=FRAMES, window=window, edge=edge)
        return jnp.sum(temporal_attention(*qkv, **options) * weight)

    single = [jnp.asarray(x, jnp.float32) for x in qkv]
    found = temporal_attention(*single, num_frames=FRAMES, window=window, edge=edge)
    np.testing.assert_allclose(found, oracle(*qkv, window, edge), rtol=1e-5, atol=1e-6)
    # The gradient along a direction, against central differences of the oracle.
    gradients = jax.jit(jax.grad(ours))(single)
    for i, gradient in enumerate(gradients):
        direction = inputs(seed=1)[i]

        def moved(step, i=i, direction=direction):
            return [x + step * direction if j == i else x for j, x in enumerate(qkv)]

        ahead, behind = (oracle(*moved(step), window, edge) for step in (1e-5, -1e-5))
        expected = np.sum((ahead - behind) * weight) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_edge_is_named():
    *qkv, _ = inputs()
    with pytest.raises(ValueError, match="unknown edge 'round'; give one of released, masked"):
        temporal_attention(*qkv, num_frames=FRAMES, window=1, edge="round")


def build(window, heads=True, **options):
    video = dict(window=window, edge="released", residual_heads=heads)
    return zoo.build("tiny", vocab_size=VOCAB, eos_token_id=END, video=video, **options)


def make_batch(model, num_clips=2, num_classes=3):
    rng = np.random.default_rng(0)
    size = model.config.vision.image_size
    text = rng.integers(1, END, (num_classes, 2, 9)).astype(np.int32)
    text[..., 6], text[..., 7:] = END, 0
    shape = (num_clips, FRAMES, size, size, 3)
    return {"video": rng.integers(0, 256, shape).astype(np.uint8), "class_text": text}


@pytest.fixture(scope="module")
def model():
    return build(window=1)


@pytest.fixture(scope="module")
def params(model):
    return meta.unbox(init_params(model, jax.random.key(0)))


def embed(model, params, batch):
    return jax.jit(lambda p, b: model.apply({"params": p}, b, method="embed"))(params, batch)


def test_window_0_is_the_image_tower_exactly(params):
    plain, batch = build(window=0, heads=False), make_batch(build(0))
    frames = batch["video"].reshape(-1, *batch["video"].shape[2:])
    clip = CLIP(plain.config, plain.compute)
    expected = jax.jit(lambda p, x: clip.apply({"params": p}, x, method="encode_image"))
    found = embed(plain, params, batch).image
    np.testing.assert_array_equal(found.reshape(-1, found.shape[-1]), expected(params, frames))


def test_frames_see_their_neighbours_only_through_the_window(model, params):
    batch = make_batch(model, num_clips=1)
    changed = dict(batch, video=batch["video"].copy())
    changed["video"][0, 0] = 255 - changed["video"][0, 0]
    for window in (0, 1):
        pair = [embed(build(window), params, x).image[0, 1] for x in (batch, changed)]
        assert (np.abs(pair[0] - pair[1]).max() > 1e-3) == bool(window)


def test_a_clip_and_its_reverse_look_alike(model, params):
    """Neighbours are a set: the model has no notion of which came first (data/moving.py)."""
    batch = make_batch(model)
    backwards = dict(batch, video=batch["video"][:, ::-1])
    forth, back = embed(model, params, batch).image, embed(model, params, backwards).image
    np.testing.assert_allclose(forth, back[:, ::-1], atol=2e-6)


def test_residual_heads_change_nothing_at_the_start(model, params):
    found = embed(model, params, make_batch(model))
    np.testing.assert_array_equal(found.image, found.image_residual)
    np.testing.assert_array_equal(found.text, found.text_residual)


def test_residual_head_is_its_formula():
    rng = np.random.default_rng(0)
    z, w1, w2 = (rng.normal(size=(4, 4)) for _ in range(3))
    found = ResidualHead().apply({"params": {"fc": {"kernel": w1}, "proj": {"kernel": w2}}}, z)
    y = z @ w1
    erf = np.vectorize(math.erf)
    expected = z + 0.1 * (0.5 * y * (1 + erf(y / np.sqrt(2)))) @ w2
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_parameters_are_those_of_clip_and_the_heads(model, params):
    clip = zoo.build("tiny", vocab_size=VOCAB, eos_token_id=END)
    plain = jax.eval_shape(lambda key: meta.unbox(init_params(clip, key)), jax.random.key(0))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), dict(params))
    assert {key: shapes.pop(key) for key in plain} == jax.tree.map(
        lambda x: (x.shape, x.dtype), dict(plain)
    )
    assert set(shapes) == {"image_head", "text_head"}


def test_the_teacher_is_clip_itself(model, params):
    batch = make_batch(model)
    found = embed(model.teacher(), params, batch)
    expected = embed(build(window=0, heads=False), params, batch)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found.image_residual is None


def test_class_embedding_is_the_mean_of_its_texts(model, params):
    batch = make_batch(model)
    clip = zoo.build("tiny", vocab_size=VOCAB, eos_token_id=END)
    texts = clip.apply({"params": params}, batch["class_text"], method="encode_text")
    mean = np.asarray(texts, np.float64).mean(axis=1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(model, params, batch).text, expected, atol=1e-6)


def test_any_mesh_and_scan_or_not_give_the_same(model, params):
    """Eight devices share three classes of two texts, which they do not divide."""
    batch = make_batch(model, num_clips=8)
    expected = embed(model, params, batch)
    mesh = make_mesh(data=4, fsdp=2)
    sharded = build(window=1, constrain=constraint(mesh), shards=8)
    unrolled = build(window=1, unroll_layers=True, remat="dots_no_batch")
    for other in (sharded, unrolled):
        found = embed(other, params, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6), found, expected)
