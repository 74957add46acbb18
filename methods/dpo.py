"""Direct preference optimization (arXiv 2305.18290): rather the chosen than the rejected."""

import jax
import jax.numpy as jnp

from losses import language
from methods.base import Method, language_model
from training.teacher import frozen


def make(beta: float = 0.1, nll_weight: float = 0.0) -> Method:
    """DPO against the first weights, which are the teacher.

    Args:
      beta: how dearly a departure from the first weights is bought.
      nll_weight: of the chosen completions' cross-entropy beside it, which keeps them likely
        (arXiv 2404.19733, section 2).
    """

    def loss(student, teacher, batch, carry):
        completion = batch["completion"]
        reference = language.completion_log_probability(jax.lax.stop_gradient(teacher), completion)
        ratio = language.completion_log_probability(student, completion) - reference
        chosen, rejected = ratio[:, 0], ratio[:, 1]
        preference = language.dpo(chosen, rejected, beta)
        nll = language.negative_log_likelihood(student[:, 0], completion[:, 0])
        metrics = {
            "dpo": preference,
            "nll": nll,
            "log_ratio_chosen": chosen.mean(),
            "log_ratio_rejected": rejected.mean(),
            "preference_accuracy": (chosen > rejected).astype(jnp.float32).mean(),
        }
        return preference + nll_weight * nll, metrics, carry

    return language_model(loss, ("tokens", "completion", "preferred"), frozen())
