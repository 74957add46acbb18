"""Maps into a teacher's space, against the products written out."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from scipy.stats import norm

from models.embeddings import Embeddings, Tokens
from models.projection import init_maps, mapped

N, K, D = 3, 2, 4


def student(params, batch):
    assert params.keys() == {"w"}
    rng = np.random.default_rng(0)

    def unit(*shape):
        x = rng.normal(size=shape)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    return Embeddings(
        image=unit(N, D),
        text=unit(N, D),
        logit_scale=jnp.float32(1),
        negatives=unit(N, K, D),
        texts={"units": unit(N, 1, 2, D)},
        image_residual=2 * unit(N, D),
        text_tokens=Tokens(3 * unit(N, 5, D), jnp.ones((N, 5), bool)),
    )


def test_each_teacher_of_another_size_sees_the_student_through_its_maps():
    maps = meta.unbox(init_maps(jax.random.key(0), D, {"large": 6, "small": 2}))
    out = mapped(student)({"w": 0, **maps}, {})
    plain = student({"w": 0}, {})
    assert out.toward() is out and out.toward("unknown") is out
    for name, size in (("large", 6), ("small", 2)):
        seen, its = out.toward(name), maps["teacher_maps"][name]
        image, text = its["image"]["kernel"], its["text"]["kernel"]
        assert image.shape == (D, size) and not np.allclose(image, text)

        def unit(x):
            return x / np.linalg.norm(x, axis=-1, keepdims=True)

        expected = {
            "image": unit(plain.image @ image),
            "text": unit(plain.text @ text),
            "negatives": unit(plain.negatives @ text),
            "image_residual": plain.image_residual @ image,
        }
        for field, value in expected.items():
            np.testing.assert_allclose(getattr(seen, field), value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            seen.texts["units"], unit(plain.texts["units"] @ text), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            seen.text_tokens.features, plain.text_tokens.features @ text, rtol=1e-5, atol=1e-6
        )
        assert seen.text_residual is None and seen.image_tokens is None
    assert out.image is not None and out.image.shape == (N, D)


def test_a_teacher_of_the_same_size_sees_the_student_through_residual_heads():
    maps = meta.unbox(init_maps(jax.random.key(0), D, {"self": D}))
    plain, its = student({"w": 0}, {}), maps["teacher_maps"]["self"]
    at_first = mapped(student)({"w": 0, **maps}, {}).toward("self")
    for field in ("image", "text", "negatives"):
        np.testing.assert_allclose(getattr(at_first, field), getattr(plain, field), atol=1e-6)

    weights = {of: np.random.default_rng(i).normal(size=(D, D)) for i, of in enumerate(its)}
    for of, value in weights.items():
        its[of]["proj"]["kernel"] = jnp.asarray(value, jnp.float32)
    seen = mapped(student)({"w": 0, **maps}, {}).toward("self")
    for field, of in (("image", "image"), ("text", "text"), ("negatives", "text")):
        z = np.asarray(getattr(plain, field), np.float64)
        hidden = z @ np.asarray(its[of]["fc"]["kernel"], np.float64)
        head = z + 0.1 * (hidden * norm.cdf(hidden)) @ weights[of]  # gelu, exactly
        head /= np.linalg.norm(head, axis=-1, keepdims=True)
        np.testing.assert_allclose(getattr(seen, field), head, rtol=1e-4, atol=1e-5)


def test_without_maps_nothing_is_added():
    out = mapped(student)({"w": 0}, {})
    assert out.mapped == {} and out.toward() is out
