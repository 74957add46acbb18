"""DeGLA (arXiv 2504.16801): global and local contrast under a self-distilling teacher."""

import jax

from errors import UserError
from losses import contrastive, distillation, grounded
from methods.base import WITH_NEGATIVES, Method
from training.teacher import ema, frozen


def make(
    contrast_weight: float = 1.0,
    igc_weight: float = 0.1,
    tgc_weight: float = 0.1,
    tgc_scale: float = 10.0,
    tgc_mask: str = "paper",
    distill_weight: float = 0.005,
    distill_reduction: str = "sum",
    distill_negatives: bool = True,
    teacher: str = "ema",
    ema_decay: float = 0.9996,
) -> Method:
    """NegCLIP + image-grounded + text-grounded contrast + self-distillation.

    Args:
      contrast_weight: weight of NegCLIP's contrast over the batch; the paper's is 1. At 0 an image
        meets its own caption and negatives alone, by igc_weight (docs/results.md).
      igc_weight, tgc_weight, distill_weight: weights of the three terms.
      tgc_scale: fixed scale of the text-grounded contrast.
      tgc_mask: 'paper', or 'released' to reproduce the public code (losses/grounded.py).
      distill_reduction: 'sum' over the global batch, or 'mean'.
      distill_negatives: whether hard negatives, too, are held at the teacher's, as in the paper.
        Without, what is true stays where it was and what is false may move (docs/results.md).
      teacher: 'ema' with ema_decay a step, or 'frozen', the initial weights or config.teacher's.

    Raises:
      UserError: an unknown teacher; from the loss, an unknown mask or reduction.
    """
    if teacher not in ("ema", "frozen"):
        raise UserError(f"unknown degla teacher {teacher!r}; give 'ema' or 'frozen'")

    def loss(student, teacher, batch, carry):
        teacher = jax.lax.stop_gradient(teacher)
        valid = batch["negatives_valid"]
        args = (student.image, student.text, student.negatives, valid, student.logit_scale)
        base = contrastive.negclip(*args)
        igc = grounded.image_grounded(*args)
        seen = student.toward()
        tgc = grounded.text_grounded(
            seen.text, teacher.text, seen.negatives, valid, tgc_scale, tgc_mask
        )
        held = valid if distill_negatives else None
        distill = distillation.squared_error(seen, teacher, held, distill_reduction)
        total = contrast_weight * base + igc_weight * igc + tgc_weight * tgc
        total = total + distill_weight * distill
        return total, {"negclip": base, "igc": igc, "tgc": tgc, "distill": distill}, carry

    policy = ema(ema_decay) if teacher == "ema" else frozen()
    return Method(loss, policy, WITH_NEGATIVES)
