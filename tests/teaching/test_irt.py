"""The two-parameter logistic model recovers what responses were drawn from."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from teaching.irt import fit_2pl, most_discriminating


def drawn(respondents, items, seed):
    rng = np.random.default_rng(seed)
    ability, difficulty = rng.normal(size=respondents), rng.normal(size=items)
    discrimination = np.exp(0.5 * rng.normal(size=items))
    p = 1 / (1 + np.exp(-discrimination * (ability[:, None] - difficulty)))
    return ability, discrimination, difficulty, (rng.random(p.shape) < p).astype(float)


@pytest.mark.parametrize("seed", [0, 1])
def test_parameters_are_recovered(seed):
    ability, discrimination, difficulty, responses = drawn(200, 100, seed)
    fit = fit_2pl(responses)
    assert spearmanr(fit.discrimination, discrimination).statistic > 0.8
    assert spearmanr(fit.difficulty, difficulty).statistic > 0.95
    assert spearmanr(fit.ability, ability).statistic > 0.95
    overlap = set(most_discriminating(fit, 40)) & set(np.argsort(-discrimination)[:40])
    assert len(overlap) / 40 > 0.7


def test_few_respondents_and_separable_items_stay_finite():
    """By maximum likelihood an item that separates 20 respondents perfectly diverges."""
    _, _, _, responses = drawn(20, 100, 2)
    order = np.argsort(responses.sum(axis=1))
    responses[order, 0] = np.arange(20) >= 10
    responses[:, 1], responses[:, 2] = 0, 1
    fit = fit_2pl(responses)
    assert np.isnan(fit.discrimination[[1, 2]]).all()
    others = np.delete(fit.discrimination, [1, 2])
    assert np.isfinite(others).all() and 0 < others.min() and others.max() < 10
    assert most_discriminating(fit, 40)[0] == 0 or fit.discrimination[0] > np.median(others)
    assert not {1, 2} & set(most_discriminating(fit, 98))
    with pytest.raises(ValueError, match="only 98 items"):
        most_discriminating(fit, 99)


def test_questions_that_were_not_asked_do_not_count():
    ability, _, _, responses = drawn(200, 60, 3)
    holes = np.where(np.random.default_rng(0).random(responses.shape) < 0.3, np.nan, responses)
    assert spearmanr(fit_2pl(holes).ability, ability).statistic > 0.9


def test_the_order_of_respondents_and_items_is_nothing():
    _, _, _, responses = drawn(30, 20, 4)
    fit, turned = fit_2pl(responses), fit_2pl(responses[::-1, ::-1])
    np.testing.assert_allclose(fit.discrimination, turned.discrimination[::-1], rtol=0.01)


@pytest.mark.parametrize("responses", [np.ones((3, 2)), np.full((3, 2), 0.5), np.ones(3)])
def test_bad_responses(responses):
    with pytest.raises(ValueError, match="responses must be|nothing tells them apart"):
        fit_2pl(responses)
