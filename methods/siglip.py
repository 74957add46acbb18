"""SigLIP (arXiv 2303.15343): every image-caption pair is its own yes-or-no question."""

from errors import UserError
from losses import sigmoid
from methods.base import Method, optional_teacher


@optional_teacher
def make() -> Method:
    """The sigmoid loss over the global batch; needs a model with a logit_bias.

    Raises:
      UserError: from the loss, when the model returns no logit_bias.
    """

    def loss(student, teacher, batch, carry):
        del teacher, batch
        if student.logit_bias is None:
            raise UserError(
                "siglip needs a logit_bias and the model has none: choose a model with one,"
                " or another method"
            )
        total = sigmoid.sigmoid_contrast(
            student.image, student.text, student.logit_scale, student.logit_bias
        )
        return total, {"sigmoid": total}, carry

    # The bias keeps the scale in check; SigLIP does not clamp it.
    return Method(loss, project=lambda params: params)
