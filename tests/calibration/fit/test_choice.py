"""Choice of columns: every criterion against least squares one model at a time, and the search against brute force."""

from itertools import combinations

import numpy as np
import pytest

from im_datasets.calibration.fit import choice as module
from im_datasets.calibration.fit.choice import CRITERIA, choose, measure, number_of_subsets
from im_datasets.calibration.fit.procedure import Procedure, quick_least_squares
from im_datasets.calibration.fit.regression import least_squares
from im_datasets.common.errors import CalibrationError

FIELDS = {"aicc": "aicc", "bic": "bic", "adjusted_r2": "adjusted_r_squared", "cv_r2": "loo_r_squared"}
HIGHER = {"adjusted_r2", "cv_r2"}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(30, 6)) * [1, 100, 0.01, 1, 1, 1] + 5
    return x, 1 + x[:, 0] - 300 * x[:, 2] + 0.5 * x[:, 4] + 2 * generator.normal(size=30)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("size", [1, 3, 6])
def test_measure_equals_one_model_at_a_time(data, criterion, size):
    x, y = data
    subsets = np.array(list(combinations(range(6), size)))
    expected = [getattr(least_squares(x[:, list(s)], y), FIELDS[criterion]) for s in subsets]
    np.testing.assert_allclose(measure(x, y, subsets, criterion), expected, rtol=1e-8)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_choose_finds_the_best_of_all_subsets(data, criterion, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    x, y = data
    every = [s for size in (1, 2, 3, 4) for s in combinations(range(6), size)]
    values = {s: getattr(least_squares(x[:, list(s)], y), FIELDS[criterion]) for s in every}
    best = max(values, key=values.get) if criterion in HIGHER else min(values, key=values.get)
    found = choose(x, y, criterion=criterion, method="all-subsets", most=4)
    assert found.columns == best
    assert found.value == pytest.approx(values[best])
    assert found.looked_at == len(every) == number_of_subsets(6, 4)
    assert sorted(found.best_by_size) == [1, 2, 3, 4]


def test_stepwise_adds_the_best_column_until_the_criterion_is_worse(data):
    x, y = data
    chosen, value = (), np.inf
    while True:
        trials = {(*chosen, i): least_squares(x[:, [*chosen, i]], y).bic for i in range(6) if i not in chosen}
        best = min(trials, key=trials.get)
        if trials[best] >= value:
            break
        chosen, value = best, trials[best]
    found = choose(x, y, criterion="bic", method="stepwise", most=6)
    assert found.columns == tuple(sorted(chosen))
    assert found.looked_at == sum(6 - step for step in range(len(chosen) + 1))


def test_none_takes_every_column(data):
    found = choose(*data, criterion="aicc", method="none", most=6)
    assert found.columns == (0, 1, 2, 3, 4, 5)
    assert found.looked_at == 1


def test_choose_refuses_more_subsets_than_it_searches():
    x = np.random.default_rng(0).normal(size=(60, 25))
    with pytest.raises(CalibrationError, match="25 columns have 245,505 subsets of up to 6; at most 20,000"):
        choose(x, x[:, 0], criterion="aicc", method="all-subsets", most=6)
    assert choose(x, x[:, 0] + x[:, 7], criterion="aicc", method="stepwise", most=6).columns[:1] == (0,)


def test_choose_survives_a_column_that_a_resample_made_constant(data):
    x, y = data
    x = np.column_stack([np.full(30, 2.0), x])
    assert 0 not in choose(x, y, criterion="aicc", method="all-subsets", most=3).columns


def test_estimate_puts_coefficients_at_their_columns(data):
    x, y = data
    estimate = Procedure(regularise="never").estimate(x, y, most=2)
    chosen = list(estimate.choice.columns)
    np.testing.assert_allclose(
        estimate.coefficients[[0, *(1 + i for i in chosen)]], quick_least_squares(x[:, chosen], y)
    )
    np.testing.assert_allclose(quick_least_squares(x[:, chosen], y), least_squares(x[:, chosen], y).coefficients)
    assert np.count_nonzero(estimate.coefficients) == 1 + len(chosen)
