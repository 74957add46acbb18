"""What learns: by rank, against gradients of the whole, and bit for bit where nothing may move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta

from errors import UserError
from models import parameters
from training import trainable as trainables

LAYERS, WIDTH, MLP = 3, 6, 10


def boxed(seed=0):
    """Two towers of stacked blocks, named as Linen's scan names them."""
    rng = np.random.default_rng(seed)

    def box(*names):
        sizes = {"layers": LAYERS, "embed": WIDTH, "mlp": MLP, "qkv": 3, "heads": 2, "head_dim": 3}
        value = jnp.asarray(0.4 * rng.normal(size=[sizes[n] for n in names]), jnp.float32)
        return meta.Partitioned(value, names)

    def tower():
        return {
            "embedding": box("mlp", "embed"),
            "blocks": {
                "qkv": {
                    "kernel": box("layers", "embed", "qkv", "heads", "head_dim"),
                    "bias": box("layers", "qkv", "heads", "head_dim"),
                },
                "out": {"kernel": box("layers", "heads", "head_dim", "embed")},
                "fc": {"kernel": box("layers", "embed", "mlp")},
            },
            "ln_post": {"scale": box("embed")},
        }

    return {"image": tower(), "text": tower(), "logit_scale": jnp.float32(1.0)}


def choose(*learn, **options):
    return trainables.choose_trainable(boxed(), learn, **options)


def flat(tree):
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


SPLITS = {
    "all": dict(),
    "tower": dict(learn=("text/*",)),
    "all but one": dict(learn=("*", "!logit_scale")),
    "last layers": dict(learn=("text/blocks/*[-2:]", "text/ln_post/*")),
    "low rank": dict(rank=2),
    "low rank and more": dict(rank=2, alpha=8.0, learn=("logit_scale", "*/bias")),
    "low rank in the last layer": dict(rank=2, where=("text/blocks/*/kernel[-1:]",)),
}


@pytest.mark.parametrize("options", SPLITS.values(), ids=SPLITS)
def test_split_and_joined_it_is_the_same_bit_for_bit(options):
    trainable = trainables.choose_trainable(boxed(), **options)
    params = meta.unbox(boxed())
    learned, frozen = trainable.split(params, jax.random.key(0))
    whole = parameters.merge(learned, frozen)
    jax.tree.map(np.testing.assert_array_equal, whole, params)
    # A teacher's part, joined with what is frozen, makes the whole, too.
    for low_rank in (True, False):
        teacher = parameters.merge(trainable.moving(params, low_rank), frozen)
        jax.tree.map(np.testing.assert_array_equal, teacher, params)


@pytest.mark.parametrize("options", SPLITS.values(), ids=SPLITS)
def test_boxes_name_the_axes_of_the_parts(options):
    """A layout is known before anything is computed, for each part as for the whole."""
    trainable = trainables.choose_trainable(boxed(), **options)
    in_boxes = trainable.split(boxed(), jax.random.key(0))
    plain = trainable.split(meta.unbox(boxed()), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, meta.unbox(in_boxes), plain)
    names = flat(meta.get_partition_spec(in_boxes))
    for path, leaf in flat(plain).items():
        assert len(names[path]) in (0, leaf.ndim), path


def test_axes_of_the_factors():
    learned, frozen = choose(rank=2).split(boxed(), jax.random.key(0))
    qkv, out = (learned["text"]["blocks"][name]["kernel"] for name in ("qkv", "out"))
    assert qkv["lora_a"].names == ("layers", "embed", None)
    assert qkv["lora_b"].names == ("layers", None, "qkv", "heads", "head_dim")
    assert out["lora_a"].names == ("layers", "heads", "head_dim", None)
    assert out["lora_b"].names == ("layers", None, "embed")
    assert frozen["text"]["blocks"]["out"]["kernel"]["lora_scale"].names == ("layers",)


def loss(params, x):
    """Something that every parameter has a part in."""
    total = 0.0
    for tower in (params["image"], params["text"]):
        y = jnp.tanh(x @ tower["embedding"])
        for i in range(LAYERS):
            layer = jax.tree.map(lambda w, i=i: jnp.asarray(w)[i], tower["blocks"])
            qkv = jnp.tensordot(y, layer["qkv"]["kernel"], 1) + layer["qkv"]["bias"]
            q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
            y = y + jnp.tensordot(q * k + v, layer["out"]["kernel"], 2)
            y = y + jnp.tanh(y @ layer["fc"]["kernel"])[:, :WIDTH]
        total = total + jnp.mean((y * tower["ln_post"]["scale"]) ** 2)
    return total * params["logit_scale"]


def train(trainable, steps=3):
    params = meta.unbox(boxed())
    learned, frozen = trainable.split(params, jax.random.key(0))
    tx = optax.adamw(1e-2, weight_decay=0.1)
    state = tx.init(learned)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, MLP)), jnp.float32)

    @jax.jit
    def step(learned, state):
        grads = jax.grad(lambda learned: loss(parameters.merge(learned, frozen), x))(learned)
        updates, state = tx.update(grads, state, learned)
        return optax.apply_updates(learned, updates), state

    for _ in range(steps):
        learned, state = step(learned, state)
    return params, parameters.merge(learned, frozen), state


def moved(before, after):
    before, after = flat(before), flat(after)
    return {path for path in before if (before[path] != after[path]).any()}


def test_what_does_not_learn_does_not_move_under_weight_decay():
    before, after, state = train(choose("text/*"))
    assert moved(before, after) == {path for path in flat(before) if path.startswith("text/")}
    moments = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(before["text"])) + 1


def test_the_last_layers_alone_move_and_have_moments():
    before, after, state = train(choose("text/blocks/*[-1:]"))
    blocks = {path for path in flat(before) if path.startswith("text/blocks")}
    assert moved(before, after) == blocks
    for path in blocks:
        np.testing.assert_array_equal(flat(before)[path][:-1], flat(after)[path][:-1])
    moments = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert moments == 2 * sum(flat(before)[path][-1].size for path in blocks) + 1


def test_gradients_of_a_part_are_those_of_the_whole():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, MLP)), jnp.float32)
    params = meta.unbox(boxed())
    whole = jax.grad(loss)(params, x)
    trainable = choose("text/blocks/*[-2:]", "image/ln_post/*", "logit_scale")
    learned, frozen = trainable.split(params, None)
    grads = jax.grad(lambda learned: loss(parameters.join(learned, frozen), x))(learned)
    expected = trainable.moving(whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grads, expected)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_update_of_each_layer_has_the_rank(rank):
    before, after, _ = train(choose(rank=rank))
    kernels = {path for path in flat(before) if path.endswith("kernel")}
    assert moved(before, after) == kernels
    for path in kernels:
        update = np.float64(flat(after)[path]) - np.float64(flat(before)[path])
        rows = LAYERS, (WIDTH if "out" not in path else 6), -1
        for layer in update.reshape(rows):
            values = np.linalg.svd(layer, compute_uv=False)
            assert values[rank - 1] > 1e-3 * values[0] > 0
            assert values[rank] < 1e-5 * values[0] + 1e-6


def test_alpha_scales_the_product():
    params = meta.unbox(boxed())
    whole = {}
    for alpha in (None, 6.0):
        learned, frozen = choose(rank=2, alpha=alpha).split(params, jax.random.key(0))
        learned = jax.tree.map(lambda x: x + 0.1, learned)
        merged = parameters.merge(learned, frozen)["image"]["blocks"]["fc"]["kernel"]
        whole[alpha] = merged - params["image"]["blocks"]["fc"]["kernel"]
    a, b = (learned["image"]["blocks"]["fc"]["kernel"][name] for name in ("lora_a", "lora_b"))
    np.testing.assert_allclose(whole[None], np.einsum("lir,lro->lio", a, b), atol=1e-5)
    np.testing.assert_allclose(whole[6.0], 3 * whole[None], atol=1e-5)


def test_first_factors_are_normal_and_differ():
    learned, _ = choose(rank=2).split(meta.unbox(boxed()), jax.random.key(0))
    factors = [leaf for path, leaf in flat(learned).items() if path.endswith("lora_a")]
    assert len({float(leaf.ravel()[0]) for leaf in factors}) == len(factors)
    variance = np.mean(np.concatenate([np.ravel(leaf) ** 2 for leaf in factors])) * WIDTH
    assert 0.7 < variance < 1.3


@pytest.mark.parametrize(
    ("learn", "options", "message"),
    [
        (("txt/*",), {}, r"config.train.learn: no parameter matches 'txt/\*'; the nearest is text"),
        (("text/*[-2:]",), {}, "matches text/embedding, which is not stacked over layers"),
        (("text/blocks/*[-4:]",), {}, "has 3 layers"),
        (("text/blocks/*[-0:]",), {}, "has 3 layers"),
        (("text/*", "!text/*"), {}, "nothing would learn"),
        ((), dict(rank=7), "rank 7 cannot stand for image/blocks"),
        ((), dict(rank=-1), "rank -1 cannot stand for"),
        ((), dict(rank=2, where=("*/scale",)), "which is no matrix"),
        ((), dict(rank=2, where=("*/atn/*",)), r"lora.where: no parameter matches"),
        (("text/*",), dict(rank=2), "would learn both itself and by LoRA.*out of lora.where"),
    ],
)
def test_what_cannot_be_is_refused(learn, options, message):
    with pytest.raises(UserError, match=message):
        choose(*learn, **options)
