"""What to spend a budget on: selection by utility, whole numbers of an allocation, and curves."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from errors import UserError

BUDGETS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def count(budget: float, n: int) -> int:
    """floor(budget * n), as the number that the decimals mean: 0.29 of 100 is 29.

    Raises:
      UserError: a budget that is not from 0 to 1.
    """
    if not 0 <= budget <= 1:
        raise UserError(f"a budget is a share from 0 to 1, not {budget}")
    return math.floor(round(budget * n, 9))


def select(utility: Sequence[float], budget: float, largest: bool = True) -> np.ndarray:
    """Indices of the share of items with the largest (or smallest) utility; ties by index.

    Raises:
      UserError: a utility is nan, or the budget is no share.
    """
    utility = np.asarray(utility, np.float64)
    if np.isnan(utility).any():
        raise UserError(f"the utility of item {int(np.isnan(utility).argmax())} is not a number")
    order = np.argsort(-utility if largest else utility, kind="stable")
    return np.sort(order[: count(budget, len(utility))])


def curve(utility, before, after, budgets: Sequence[float] = BUDGETS, largest=True) -> list[float]:
    """Accuracy over budgets, where the selected items get their outcome after help.

    Args:
      before, after: outcomes [n] without and with help; predicted once, whatever the budget.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    gains = [(after - before)[select(utility, budget, largest)].sum() for budget in budgets]
    return [float(before.mean() + gain / len(before)) for gain in gains]


def allocate(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to the weights that add up to the total, by largest remainder.

    Equal weights where all are zero. Ties go to the earlier name.

    Raises:
      UserError: no names, a weight that is negative or not finite, or a negative total.
    """
    if not weights or total < 0:
        raise UserError(f"cannot allocate {total} to {len(weights)} names")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"the weight of {name} is {weight}; it must be at least 0")
    values = np.array(list(weights.values()), np.float64)
    if not values.any():
        values = np.ones_like(values)
    exact = total * (values / values.sum())
    whole = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(-np.round(exact - whole, 9), kind="stable")[: total - whole.sum()]
    whole[rest] += 1
    return dict(zip(weights, whole.tolist(), strict=True))
