"""FROSTER (arXiv 2402.03241): classify video, stay near the frozen CLIP through residual heads."""

import jax

from losses import classification, distillation
from methods.base import Method
from training.teacher import frozen, none


def make(distill_weight: float = 2.0) -> Method:
    """Cross-entropy over the class texts + distillation of frames and class texts.

    The features compared with the teacher's are those after the residual heads; a model without
    heads compares the features themselves.

    Args:
      distill_weight: of both distillation terms; 0 is plain fine-tuning, without a teacher.
    """

    def loss(student, teacher, batch, carry):
        logits = classification.frame_logits(student.image, student.text, student.logit_scale)
        total = classification.cross_entropy(logits, batch["label"])
        metrics = {"cross_entropy": total, "top1": (logits.argmax(1) == batch["label"]).mean()}
        if teacher is not None:
            teacher = jax.lax.stop_gradient(teacher)
            seen = student.toward()
            image, text = seen.image_residual, seen.text_residual
            image, text = (seen.image, seen.text) if image is None else (image, text)
            metrics["distill_image"] = distillation.cosine(image, teacher.image)
            metrics["distill_text"] = distillation.cosine(text, teacher.text)
            distill = metrics["distill_image"] + metrics["distill_text"]
            total = total + distill_weight * distill
        return total, metrics, carry

    policy = frozen() if distill_weight else none()
    return Method(loss, policy, ("video", "label", "class_text"))
