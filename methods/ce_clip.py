"""CE-CLIP (arXiv 2306.08832): NegCLIP plus two terms on a sample's own hard negatives."""

import jax.numpy as jnp

from errors import UserError
from losses import contrastive, hard_negatives
from methods.base import WITH_NEGATIVES, Method, optional_teacher


@optional_teacher
def make(
    imc_weight: float = 0.3,
    cmr_weight: float = 0.2,
    max_threshold: float = 10.0,
    num_negatives: int = 4,
) -> Method:
    """NegCLIP + intra-modal contrast + cross-modal rank with thresholds that a step hands on.

    Args:
      imc_weight, cmr_weight: weights of the two terms.
      max_threshold: upper bound of the adaptive thresholds, in units of logits.
      num_negatives: K, hard negatives a sample; slot k has one type, and so one threshold.

    Raises:
      UserError: from the loss, when the batch has another K.
    """

    def loss(student, teacher, batch, thresholds):
        del teacher
        number = student.negatives.shape[1]
        if number != num_negatives:
            raise UserError(
                f"ce_clip is set to {num_negatives} negatives a sample and the data has {number}:"
                f" set method.options.num_negatives={number}"
            )
        valid = batch["negatives_valid"]
        args = (student.image, student.text, student.negatives, valid, student.logit_scale)
        base = contrastive.negclip(*args)
        imc = hard_negatives.intra_modal_contrast(*args)
        cmr, next_thresholds = hard_negatives.cross_modal_rank(*args, thresholds, max_threshold)
        metrics = {"negclip": base, "imc": imc, "cmr": cmr, "threshold": jnp.mean(thresholds)}
        return base + imc_weight * imc + cmr_weight * cmr, metrics, next_thresholds

    return Method(
        loss,
        batch_fields=WITH_NEGATIVES,
        init_carry=lambda: jnp.zeros(num_negatives, jnp.float32),
    )
