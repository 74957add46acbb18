"""CLIC (NeurIPS 2025): two images in one, told of in several orders, and plain CLIP in turn."""

import jax.numpy as jnp

from losses import concatenation, contrastive
from methods.base import WITH_NEGATIVES, Method, Texts, optional_teacher


@optional_teacher
def make(
    contrast_weight: float = 0.5, negative_weight: float = 0.5, order_weight: float = 1.0
) -> Method:
    """Contrast with each text of a pair + with its hard negative + the same in either order.

    A batch of data/pairs.py holds pairs, or singles for a step of CLIP. The paper freezes the image
    tower: config.train.learn=("text/*", "logit_scale").

    Args:
      contrast_weight, negative_weight, order_weight: weights of the three terms.
    """

    def loss(student, teacher, batch, carry):
        del teacher
        scale = student.logit_scale
        if "texts:joined" not in batch:
            total = contrastive.info_nce(student.image, student.text, scale)
            return total, {"info_nce": total}, carry
        others, has_others = student.texts["joined"], batch["valid:joined"]
        texts = jnp.concatenate([student.text[:, None], others], axis=1)
        valid = jnp.concatenate([jnp.ones_like(has_others[:, :1]), has_others], axis=1)
        negative, has_negative = student.negatives[:, 0], batch["negatives_valid"][:, 0]
        metrics = {
            "contrast": concatenation.contrast(student.image, texts, valid, scale),
            "exchanged": concatenation.exchanged(
                student.image, texts, valid, negative, has_negative, scale
            ),
            "order": concatenation.order_invariance(student.text, others[:, 0], has_others[:, 0]),
        }
        total = (
            contrast_weight * metrics["contrast"]
            + negative_weight * metrics["exchanged"]
            + order_weight * metrics["order"]
        )
        return total, metrics, carry

    return Method(loss, batch_fields=WITH_NEGATIVES, texts=(Texts("joined", count=3),))
