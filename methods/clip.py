"""CLIP (arXiv 2103.00020): symmetric contrast of images and captions, no teacher."""

from losses import contrastive
from methods.base import Method, optional_teacher


@optional_teacher
def make() -> Method:
    """Symmetric InfoNCE over the global batch."""

    def loss(student, teacher, batch, carry):
        del teacher, batch
        total = contrastive.info_nce(student.image, student.text, student.logit_scale)
        return total, {"info_nce": total}, carry

    return Method(loss)
