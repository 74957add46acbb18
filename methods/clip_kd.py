"""CLIP-KD (CVPR 2024, arXiv 2307.12732): a frozen, larger CLIP teaches a smaller one."""

import jax

from losses import contrastive, distillation
from methods.base import Method, optional_teacher
from training.teacher import external


@optional_teacher
def make(
    feature_weight: float = 2000.0,
    interactive_weight: float = 1.0,
    relational_weight: float = 1.0,
) -> Method:
    """CLIP + feature distillation + interactive contrast + KL of the two models' logit rows.

    config.teacher names the teacher. Where its embeddings have another size, features and
    interactive contrast see the student's through linear maps, which learn (models/projection.py).

    Args:
      feature_weight: of the squared error of images and captions, mean over their elements.
      interactive_weight: of the contrast of the student with the teacher's other modality.
      relational_weight: of the KL divergence.
    """

    def loss(student, teacher, batch, carry):
        del batch
        teacher = jax.lax.stop_gradient(teacher)
        mapped, scale = student.toward(), student.logit_scale
        metrics = {
            "info_nce": contrastive.info_nce(student.image, student.text, scale),
            "feature": distillation.squared_error(mapped, teacher, None, "mean"),
            "interactive": distillation.interactive(mapped, teacher, scale),
            "relational": distillation.relational(student, teacher),
        }
        total = (
            metrics["info_nce"]
            + feature_weight * metrics["feature"]
            + interactive_weight * metrics["interactive"]
            + relational_weight * metrics["relational"]
        )
        return total, metrics, carry

    return Method(loss, external())
