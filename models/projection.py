"""What lies between a student's joint space and a teacher's: linear maps where their sizes differ
(CLIP-KD, arXiv 2307.12732, section 3.2), residual heads where not (FROSTER, arXiv 2402.03241).

They learn with the student and are of no use without the teacher.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.embeddings import Embeddings
from models.transformer import unit_norm

MAPS = "teacher_maps"  # among the parameters of a student that has such maps


class ResidualHead(nn.Module):
    """z + 0.1 W2 gelu(W1 z), W2 zero at the start: [..., D] -> [..., D] (FROSTER, section 3.2)."""

    @nn.compact
    def __call__(self, z):
        def dense(name, init):
            kernel_init = nn.with_logical_partitioning(init, ("embed", "projection"))
            return nn.Dense(z.shape[-1], use_bias=False, kernel_init=kernel_init, name=name)

        y = nn.gelu(dense("fc", nn.initializers.kaiming_normal())(z), approximate=False)
        return z + 0.1 * dense("proj", nn.initializers.zeros)(y)


def init_maps(key: jax.Array, size: int, teachers: Mapping[str, int]) -> dict:
    """Random maps, in Linen's boxes, of images and of texts for each teacher.

    Args:
      size: of the student's embeddings.
      teachers: by name the size of its embeddings; one of the student's size gets residual heads,
        which change nothing at the start.
    """
    init = nn.with_logical_partitioning(nn.initializers.normal(size**-0.5), ("embed", "projection"))
    keys = iter(jax.random.split(key, 2 * len(teachers)))

    def between(its: int, key) -> dict:
        if its != size:
            return {"kernel": init(key, (size, its))}
        return ResidualHead().init(key, jnp.zeros((1, size)))["params"]

    return {
        MAPS: {
            name: {of: between(its, next(keys)) for of in ("image", "text")}
            for name, its in sorted(teachers.items())
        }
    }


def mapped(embed: Callable) -> Callable[[dict, dict], Embeddings]:
    """(params, batch) -> Embeddings, with what each teacher of another size is compared with."""

    def with_maps(params, batch):
        if MAPS not in params:
            return embed(params, batch)
        maps = params[MAPS]
        student = embed({name: value for name, value in params.items() if name != MAPS}, batch)
        return student.replace(mapped={name: _through(student, its) for name, its in maps.items()})

    return with_maps


def _through(student: Embeddings, maps: dict) -> Embeddings:
    def map_by(params):
        def apply(x):
            if x is None:
                return None
            return x @ params["kernel"] if "kernel" in params else head.apply({"params": params}, x)

        return apply

    head, image, text = ResidualHead(), map_by(maps["image"]), map_by(maps["text"])

    return student.replace(
        image=unit_norm(image(student.image)),
        text=unit_norm(text(student.text)),
        negatives=None if student.negatives is None else unit_norm(text(student.negatives)),
        texts={role: unit_norm(text(x)) for role, x in student.texts.items()},
        image_residual=image(student.image_residual),
        text_residual=text(student.text_residual),
        image_tokens=image(student.image_tokens),
        text_tokens=_tokens(student.text_tokens, text),
        negative_tokens=_tokens(student.negative_tokens, text),
    )


def _tokens(tokens, text):
    return None if tokens is None else tokens.replace(features=text(tokens.features))
