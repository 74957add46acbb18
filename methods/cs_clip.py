"""CS-CLIP (2026): NegCLIP, and contrast of images with units of their captions and their foils."""

from losses import contrastive
from methods.base import WITH_NEGATIVES, Method, Texts, optional_teacher


@optional_teacher
def make(unit_weight: float = 0.5, num_units: int = 2) -> Method:
    """NegCLIP + unit loss; logit_scale is not clamped. The paper has one negative a caption.

    Args:
      unit_weight: weight of the unit loss.
      num_units: units drawn for each sample, each with its foil.
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
        units, valid = student.texts["units"], batch["valid:units"]
        of_each = [
            contrastive.unit_contrast(
                student.image, units[:, m, 0], units[:, m, 1], valid[:, m], student.logit_scale
            )
            for m in range(num_units)
        ]
        unit = sum(of_each) / num_units
        return base + unit_weight * unit, {"negclip": base, "unit": unit}, carry

    return Method(
        loss,
        batch_fields=WITH_NEGATIVES,
        texts=(Texts("units", count=num_units, group=2),),
        project=lambda params: params,
    )
