"""Supervised fine-tuning: a language model learns the completions of prompts."""

from losses import language
from methods.base import Method, language_model


def make() -> Method:
    """Cross-entropy of the completions' tokens; of preferences the chosen ones."""

    def loss(student, teacher, batch, carry):
        del teacher
        completion = batch["completion"]
        if "preferred" in batch:
            completion = completion & batch["preferred"][..., None]
        return language.negative_log_likelihood(student, completion), {}, carry

    return language_model(loss, ("tokens", "completion"))
