"""FSC-CLIP (EMNLP 2024): hard negatives as a calibrated regularisation, of captions and words."""

import jax
import jax.numpy as jnp

from losses import calibration, contrastive
from losses.similarity import paired, with_own
from methods.base import WITH_NEGATIVES, Method, optional_teacher


@optional_teacher
def make(
    global_weight: float = 0.5,
    local_weight: float = 0.2,
    smoothing: float = 0.02,
    focus: float = 2.0,
) -> Method:
    """CLIP + selective calibrated regularisation (SCR) of captions, and of words against patches.

    Args:
      global_weight, local_weight: weights of the two terms; without the local one the model need
        not hand out patches and words.
      smoothing: share of the label that all texts of a sample have in common.
      focus: exponent of the focal weight.
    """

    def loss(student, teacher, batch, carry):
        del teacher
        valid = batch["negatives_valid"]
        metrics = {
            "info_nce": contrastive.info_nce(student.image, student.text, student.logit_scale)
        }
        total = metrics["info_nce"]
        if global_weight:
            caption = paired(student.image, student.text)[:, None]
            negatives = with_own(student.image, student.negatives)
            logits = student.logit_scale * jnp.concatenate([caption, negatives], axis=1)
            metrics["global"] = calibration.selective(logits, valid, smoothing, focus)
            total = total + global_weight * metrics["global"]
        if local_weight:
            captions, negatives = student.text_tokens, student.negative_tokens
            texts = jax.tree.map(
                lambda a, b: jnp.concatenate([a[:, None], b], axis=1), captions, negatives
            )
            logits = calibration.local_logits(student.image_tokens, texts, student.logit_scale)
            metrics["local"] = calibration.selective(logits, valid, smoothing, focus)
            total = total + local_weight * metrics["local"]
        return total, metrics, carry

    needs = ("image_tokens", "text_tokens") if local_weight else ()
    return Method(loss, batch_fields=WITH_NEGATIVES, needs=needs)
