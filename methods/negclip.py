"""NegCLIP (ARO, arXiv 2210.01936): CLIP with hard negative captions as extra texts."""

from losses import contrastive
from methods.base import WITH_NEGATIVES, Method, optional_teacher


@optional_teacher
def make() -> Method:
    """InfoNCE whose image rows also contrast every hard negative of the batch."""

    def loss(student, teacher, batch, carry):
        del teacher
        total = contrastive.negclip(
            student.image,
            student.text,
            student.negatives,
            batch["negatives_valid"],
            student.logit_scale,
        )
        return total, {"negclip": total}, carry

    return Method(loss, batch_fields=WITH_NEGATIVES)
