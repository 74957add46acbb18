"""Linear maps from the student's joint space into a teacher's, where their sizes differ (CLIP-KD,
arXiv 2307.12732, section 3.2). They learn with the student and are of no use without the teacher.
"""

from collections.abc import Callable, Mapping

import jax
from flax import linen as nn

from models.embeddings import Embeddings
from models.transformer import unit_norm

MAPS = "teacher_maps"  # among the parameters of a student that has such maps


def init_maps(key: jax.Array, size: int, teachers: Mapping[str, int]) -> dict:
    """Random maps, in Linen's boxes, of images and of texts for each teacher.

    Args:
      size: of the student's embeddings.
      teachers: by name the size of its embeddings.
    """
    init = nn.with_logical_partitioning(nn.initializers.normal(size**-0.5), ("embed", "projection"))
    keys = iter(jax.random.split(key, 2 * len(teachers)))
    return {
        MAPS: {
            name: {of: {"kernel": init(next(keys), (size, its))} for of in ("image", "text")}
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
    def image(x):
        return None if x is None else x @ maps["image"]["kernel"]

    def text(x):
        return None if x is None else x @ maps["text"]["kernel"]

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
