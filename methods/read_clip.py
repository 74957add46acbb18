"""READ-CLIP (NeurIPS 2025): NegCLIP whose captions of one image stay near each other."""

from losses import contrastive
from methods.base import WITH_NEGATIVES, Method, Texts, optional_teacher


@optional_teacher
def make(alignment_weight: float = 0.5) -> Method:
    """NegCLIP + sentence alignment; the paper's other term, a decoder's, is left out.

    Args:
      alignment_weight: weight of the alignment of another caption of an image with its caption.
    """

    def loss(student, teacher, batch, carry):
        del teacher
        base = contrastive.negclip(
            student.image,
            student.text,
            student.negatives,
            batch["negatives_valid"],
            student.logit_scale,
        )
        alignment = contrastive.text_alignment(
            student.texts["captions"][:, 0],
            student.text,
            batch["valid:captions"][:, 0],
            student.logit_scale,
        )
        metrics = {"negclip": base, "alignment": alignment}
        return base + alignment_weight * alignment, metrics, carry

    return Method(loss, batch_fields=WITH_NEGATIVES, texts=(Texts("captions"),))
