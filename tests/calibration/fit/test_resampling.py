"""Cross-validation and bootstrap: the same seed gives the same numbers, and the numbers mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import make_runs

from im_datasets.calibration.fit import resampling
from im_datasets.calibration.fit.observations import observe
from im_datasets.calibration.fit.procedure import Procedure, quick_least_squares
from im_datasets.calibration.fit.regression import least_squares, ridge
from im_datasets.calibration.fit.resampling import bootstrap, cross_validate, kendall, spearman
from im_datasets.common.errors import CalibrationError

PLAIN = Procedure(method="none", regularise="never")


@pytest.fixture(scope="module")
def data():
    seen = observe(make_runs(40))
    return seen.means, seen.log_losses


def resampled(x, y, procedure=PLAIN, *, seed=0, penalty=0.0, resamples=400, choices=20):
    chosen = tuple(range(x.shape[1]))
    coefficients = quick_least_squares(x, y) if not penalty else ridge(x, y).coefficients
    return bootstrap(
        procedure, x, y, chosen, coefficients, penalty=penalty, most=3, resamples=resamples, choices=choices, seed=seed
    )


def test_cross_validate_with_a_fold_for_each_run_is_leave_one_out(data):
    x, y = data
    result = cross_validate(PLAIN, x, y, most=3, folds=40, repeats=1, seed=0)
    fit = least_squares(x, y)
    np.testing.assert_allclose(result.predictions, fit.left_out, rtol=1e-8)
    assert result.r_squared == pytest.approx(fit.loo_r_squared)
    assert result.spread == 0


def test_cross_validate_of_noise_is_not_above_zero_although_the_choice_looks_good():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 12)), generator.normal(size=40)
    procedure = Procedure(criterion="adjusted_r2", most=4)
    chosen = procedure.estimate(x, y, most=4).choice.columns
    assert least_squares(x[:, list(chosen)], y).r_squared > 0.15
    assert cross_validate(procedure, x, y, most=4, folds=10, repeats=3, seed=0).r_squared < 0


def test_cross_validate_and_bootstrap_follow_the_seed(data):
    def folds(seed):
        return cross_validate(Procedure(), *data, most=3, folds=5, repeats=2, seed=seed)

    assert folds(1).r_squared == folds(1).r_squared != folds(2).r_squared
    first, second, other = (resampled(*data, Procedure(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.low, second.low)
    np.testing.assert_array_equal(first.order, second.order)
    assert (first.low != other.low).all()


def test_bootstrap_spread_is_close_to_the_hc3_error(data):
    x, y = data
    fit, result = least_squares(x, y), resampled(x, y, resamples=2000)
    np.testing.assert_allclose((result.high - result.low) / (fit.high - fit.low), 1, atol=0.2)
    np.testing.assert_allclose((result.high + result.low) / 2, fit.coefficients)


def test_bootstrap_of_ridge_keeps_the_penalty(data):
    x, y = data
    heavy = resampled(x, y, penalty=100.0)
    light = resampled(x, y, penalty=1e-9)
    assert ((heavy.high - heavy.low)[1:] < 0.1 * (light.high - light.low)[1:]).all()


def test_bootstrap_says_how_often_a_column_is_chosen_and_keeps_its_sign():
    seen = observe(make_runs(60, columns=("im_reward", "im_quality")))
    result = resampled(seen.means, seen.log_losses, Procedure(criterion="bic"), choices=100)
    assert result.chosen[0] == 1
    assert result.chosen[1] < 0.7
    assert result.same_sign[1] == 1
    assert result.resamples == 400


def test_order_is_settled_without_noise_and_loose_in_noise():
    clear, loose = (observe(make_runs(30, noise=noise, seed=4)) for noise in (1e-6, 2.0))
    assert resampled(clear.means, clear.log_losses).order_interval()[1] > 0.99
    median, low, high = resampled(loose.means, loose.log_losses, choices=100).order_interval()
    assert low < 0.5
    assert low <= median <= high


def test_bootstrap_of_five_runs_draws_enough_different_ones():
    seen = observe(make_runs(5, columns=("im_reward",)))
    assert np.isfinite(resampled(seen.means, seen.log_losses).order).all()


def copied(n, copies, noise):
    """n subsets, each trained on so often; the loss has nothing to do with the indicators but is the subset's own."""
    runs = make_runs(n, columns=("im_quality", "im_output_length"), noise=noise)
    return observe([replace(run, run=f"{run.run}-{seed}", seed=seed) for run in runs for seed in range(copies)])


def test_copies_of_a_subset_stay_together_in_folds():
    """By hand: leave-one-subset-out, every run of a subset predicted by the fit without any of them."""
    seen = copied(12, 3, 0.2)
    x, y, subset = seen.means, seen.log_losses, seen.subset
    assert subset.tolist() == [number for number in range(12) for _ in range(3)]
    found = cross_validate(PLAIN, x, y, most=2, folds=12, repeats=1, seed=0, subset=subset)
    for number in range(12):
        out = subset == number
        b = quick_least_squares(x[~out], y[~out])
        np.testing.assert_allclose(found.predictions[out], b[0] + x[out] @ b[1:])
    assert cross_validate(PLAIN, x, y, most=2, folds=40, repeats=1, seed=0, subset=subset).folds == 12


def test_copies_of_a_subset_are_drawn_together_and_narrow_no_interval():
    """Each run four times over says as much as each run once: the same coefficients, the same intervals."""
    once, often = copied(30, 1, 0.2), copied(30, 4, 0.2)
    chosen, b = (0, 1), quick_least_squares(once.means, once.log_losses)
    settings = {"penalty": 0.0, "most": 2, "resamples": 400, "choices": 20, "seed": 0}
    one = bootstrap(PLAIN, once.means, once.log_losses, chosen, b, **settings)
    four = bootstrap(PLAIN, often.means, often.log_losses, chosen, b, **settings, subset=often.subset)
    np.testing.assert_allclose(four.low, one.low)
    np.testing.assert_allclose(four.order, one.order)
    apart = bootstrap(PLAIN, often.means, often.log_losses, chosen, b, **settings)
    assert ((apart.high - apart.low) < 0.7 * (one.high - one.low)).all()


def test_bootstrap_of_nearly_as_many_terms_as_runs_ends_and_says_why(monkeypatch):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 26)), generator.normal(size=30)
    with pytest.raises(
        CalibrationError, match=r"30 different subsets are too few to resample a fit of 26 terms: .* of 100"
    ):
        bootstrap(PLAIN, x, y, tuple(range(26)), np.ones(27), penalty=0.0, most=26, resamples=100, choices=20, seed=0)
    monkeypatch.setattr(resampling, "ATTEMPTS", 50)
    with pytest.raises(CalibrationError, match="none of 50 resamples held 28 different ones; make more runs, or fit"):
        bootstrap(PLAIN, x, y, (0,), np.ones(2), penalty=0.0, most=26, resamples=100, choices=20, seed=0)


@pytest.mark.parametrize("settings", [{"resamples": 99}, {"choices": 19}])
def test_bootstrap_refuses_too_few_resamples(data, settings):
    with pytest.raises(CalibrationError, match="at least 100 resamples and 20 choices"):
        resampled(*data, **settings)


@pytest.mark.parametrize("settings", [{"folds": 1, "repeats": 1}, {"folds": 5, "repeats": 0}])
def test_cross_validate_refuses_too_few_folds(data, settings):
    with pytest.raises(CalibrationError, match="at least 2 folds and 1 repeat"):
        cross_validate(PLAIN, *data, most=1, seed=0, **settings)


@pytest.mark.parametrize("correlation", [kendall, spearman])
def test_rank_correlation_is_one_minus_one_or_nothing(correlation):
    up = np.array([1.0, 2.0, 5.0])
    assert correlation(up, up**2) == pytest.approx(1)
    assert correlation(up, -up) == pytest.approx(-1)
    assert correlation(up, np.ones(3)) == 0
