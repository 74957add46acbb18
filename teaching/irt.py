"""Item response theory: which items tell respondents apart (two-parameter logistic model, MAP)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from errors import UserError

LOG_DISCRIMINATION_SD = 0.5


class Fit(NamedTuple):
    """P(right) = sigmoid(discrimination * (ability - difficulty)).

    Attributes:
      ability: float [respondents].
      discrimination, difficulty: float [items]; nan for an item that all or none got right, which
        tells nobody apart.
    """

    ability: np.ndarray
    discrimination: np.ndarray
    difficulty: np.ndarray


def fit_2pl(responses: np.ndarray) -> Fit:
    """The most probable parameters under log discrimination ~ N(0, .5), the others ~ N(0, 1).

    Without priors a handful of respondents lets items that separate them perfectly diverge.

    Args:
      responses: [respondents, items] of 1, 0 and nan (not asked).

    Raises:
      UserError: another value or shape, or no item that tells respondents apart.
    """
    responses = np.asarray(responses, np.float64)
    if responses.ndim != 2 or not np.isin(responses[~np.isnan(responses)], (0, 1)).all():
        raise UserError("responses must be [respondents, items] of 0, 1 and nan")
    answered = ~np.isnan(responses)
    right = np.where(answered, responses, 0)
    solved, seen = right.sum(axis=0), answered.sum(axis=0)
    varying = (solved > 0) & (solved < seen)
    if not varying.any():
        raise UserError("every item was solved by all or by none: nothing tells them apart")
    n, m = len(responses), int(varying.sum())
    sign = jnp.asarray(2 * right[:, varying] - 1)
    weight = jnp.asarray(answered[:, varying], jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def negative_log_posterior(x):
        ability, log_a, difficulty = x[:n, None], x[n : n + m], x[n + m :]
        logits = jnp.exp(log_a) * (ability - difficulty)
        likelihood = jnp.sum(weight * jax.nn.log_sigmoid(sign * logits))
        prior = jnp.sum(ability**2) + jnp.sum(difficulty**2)
        return prior / 2 + jnp.sum((log_a / LOG_DISCRIMINATION_SD) ** 2) / 2 - likelihood

    def objective(x):
        value, gradient = negative_log_posterior(jnp.asarray(x, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    x = minimize(objective, np.zeros(n + 2 * m), jac=True, method="L-BFGS-B").x
    discrimination, difficulty = np.full((2, responses.shape[1]), np.nan)
    discrimination[varying], difficulty[varying] = np.exp(x[n : n + m]), x[n + m :]
    return Fit(x[:n], discrimination, difficulty)


def most_discriminating(fit: Fit, k: int) -> np.ndarray:
    """Indices of the k items of largest discrimination, best first; constant items never are.

    Raises:
      UserError: fewer than k items tell respondents apart.
    """
    varying = np.flatnonzero(~np.isnan(fit.discrimination))
    if len(varying) < k:
        raise UserError(f"only {len(varying)} items tell respondents apart; {k} are wanted")
    return varying[np.argsort(-fit.discrimination[varying], kind="stable")[:k]]
