"""Regression: statsmodels against formulas written out in numpy, and against ridge by augmented rows."""

import builtins
import math
import sys

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import alike, make_runs

from im_datasets.calibration.fit.observations import observe
from im_datasets.calibration.fit.regression import (
    inflation,
    least_squares,
    names_with_intercept,
    out_of_sample_r_squared,
    predicted,
    ridge,
    univariate,
)
from im_datasets.common.errors import MissingExtraError


@pytest.fixture(scope="module")
def data():
    """Columns of very different sizes, and a noise that grows with one of them."""
    generator = np.random.default_rng(3)
    z = generator.normal(size=(40, 3))
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    x = z * [1e-3, 250.0, 1.0] + [0.9, 4000.0, 0.0]
    y = 0.2 + z @ [0.05, -0.03, 0.0] + 0.05 * (1 + np.abs(z[:, 0])) * generator.normal(size=40)
    return x, y


def by_hand(x, y):
    design = np.column_stack([np.ones(len(y)), x])
    scale = np.array([1.0, *x.std(axis=0)])
    inverse = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    coefficients = inverse @ design.T @ y
    residuals = y - design @ coefficients
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    return design, inverse, coefficients, residuals, leverage


def test_coefficients_and_hc3_errors_equal_the_formulas(data):
    x, y = data
    design, inverse, coefficients, residuals, leverage = by_hand(x, y)
    meat = design.T @ np.diag((residuals / (1 - leverage)) ** 2) @ design
    errors = np.sqrt(np.diag(inverse @ meat @ inverse))
    fit = least_squares(x, y)
    np.testing.assert_allclose(fit.coefficients, coefficients, rtol=1e-8)
    np.testing.assert_allclose(fit.standard_errors, errors, rtol=1e-8)
    reach = stats.t.ppf(0.975, 36) * errors
    np.testing.assert_allclose(fit.low, coefficients - reach, rtol=1e-7)
    np.testing.assert_allclose(fit.high, coefficients + reach, rtol=1e-7)
    np.testing.assert_allclose(fit.p, 2 * stats.t.sf(np.abs(coefficients / errors), 36), rtol=1e-6)


def test_measures_of_fit_equal_the_formulas(data):
    x, y = data
    _, _, _, residuals, leverage = by_hand(x, y)
    fit, total, rss = least_squares(x, y), ((y - y.mean()) ** 2).sum(), residuals @ residuals
    likelihood = -20 * (np.log(2 * np.pi * rss / 40) + 1)
    assert fit.r_squared == pytest.approx(1 - rss / total)
    assert fit.adjusted_r_squared == pytest.approx(1 - rss / 36 / (total / 39))
    assert fit.residual_error == pytest.approx(math.sqrt(rss / 36))
    assert fit.bic == pytest.approx(-2 * likelihood + 5 * math.log(40))
    assert fit.aicc == pytest.approx(-2 * likelihood + 10 + 60 / 34)
    np.testing.assert_allclose(fit.leverage, leverage, rtol=1e-8)
    within = residuals / (1 - leverage)
    np.testing.assert_allclose(fit.cook, within**2 * leverage / (4 * rss / 36), rtol=1e-7)
    others = (rss - residuals**2 / (1 - leverage)) / 35
    np.testing.assert_allclose(fit.studentized, residuals / np.sqrt(others * (1 - leverage)), rtol=1e-7)


def test_left_out_predictions_equal_forty_fits_without_the_run(data):
    x, y = data
    fit, penalised = least_squares(x, y), ridge(x, y)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        _, _, coefficients, _, _ = by_hand(x[rest], y[rest])
        assert fit.left_out[i] == pytest.approx(coefficients[0] + x[i] @ coefficients[1:])
        beta = _closed_form_ridge(z[rest], y[rest], penalised.penalty * len(y))
        assert penalised.left_out[i] == pytest.approx(beta[0] + z[i] @ beta[1:])
    mean_of_others = (y.sum() - y) / (len(y) - 1)
    press = ((y - fit.left_out) ** 2).sum() / ((y - mean_of_others) ** 2).sum()
    assert fit.loo_r_squared == pytest.approx(1 - press)


def _closed_form_ridge(z, y, penalty):
    design = np.column_stack([np.ones(len(y)), z])
    shrink = penalty * np.diag([0.0, *np.ones(z.shape[1])])
    return np.linalg.solve(design.T @ design + shrink, design.T @ y)


def test_ridge_equals_its_closed_form_and_takes_the_best_penalty(data):
    x, y = data
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    fit = ridge(x, y)
    np.testing.assert_allclose(
        predicted(fit.coefficients, x), predicted(_closed_form_ridge(z, y, 40 * fit.penalty), z), rtol=1e-8
    )
    assert fit.loo_r_squared == max(fit.path.values()) == fit.path[fit.penalty]
    hat = z @ np.linalg.solve(z.T @ z + 40 * fit.penalty * np.eye(3), z.T)
    assert fit.degrees_of_freedom == pytest.approx(np.trace(hat))
    residual = y - predicted(fit.coefficients, x)
    assert fit.r_squared == pytest.approx(1 - residual @ residual / ((y - y.mean()) ** 2).sum())


def test_ridge_splits_a_shared_effect_where_least_squares_flings_it_apart():
    means = alike(60, gap=1e-4)
    x = np.column_stack([means["im_naturalness"], means["im_understandability"]])
    y = -0.5 * x.sum(axis=1) + 0.03 * np.random.default_rng(0).normal(size=60)
    assert np.ptp(least_squares(x, y).coefficients[1:]) > 5
    np.testing.assert_allclose(ridge(x, y).coefficients[1:], -0.5, atol=0.2)


def test_inflation_is_one_over_one_less_r_squared_on_the_others(data):
    x, _ = data
    expected = []
    for i in range(3):
        others = np.delete(x, i, axis=1)
        residual = by_hand(others, x[:, i])[3]
        expected.append(((x[:, i] - x[:, i].mean()) ** 2).sum() / (residual @ residual))
    np.testing.assert_allclose(inflation(x), expected, rtol=1e-8)
    assert inflation(x[:, :1]).tolist() == [1.0]


def test_inflation_with_too_few_rows_is_not_a_number():
    assert np.isnan(inflation(np.random.default_rng(0).normal(size=(4, 3)))).all()


def test_univariate_equals_linregress_and_holm_by_hand():
    observations = observe(make_runs(50, columns=("im_reward", "im_coherence", "im_quality")))
    table = univariate(observations)
    assert [row.r_squared for row in table] == sorted((row.r_squared for row in table), reverse=True)
    for row in table:
        values = observations.means[:, observations.columns.index(row.column)]
        line = stats.linregress(values, observations.log_losses)
        assert row.slope == pytest.approx(line.slope)
        assert row.r_squared == pytest.approx(line.rvalue**2)
        assert row.low < row.slope < row.high
    ordered = sorted(table, key=lambda row: row.p)
    holm = np.maximum.accumulate([row.p * (3 - i) for i, row in enumerate(ordered)])
    np.testing.assert_allclose([row.p_holm for row in ordered], np.minimum(holm, 1))


def test_out_of_sample_r_squared_is_zero_for_the_baseline_and_one_for_the_truth():
    y, baseline = np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.5, 1.5])
    assert out_of_sample_r_squared(y, baseline, baseline) == 0
    assert out_of_sample_r_squared(y, y, baseline) == 1


def test_names_with_intercept_puts_it_first():
    assert names_with_intercept(["im_mtld"]) == ("intercept", "im_mtld")


def test_without_statsmodels_the_pip_line_is_given(monkeypatch, data):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("statsmodels"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("statsmodels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'im-datasets\[calibrate\]'"):
        least_squares(*data)
