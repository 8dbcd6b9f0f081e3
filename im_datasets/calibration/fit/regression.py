"""One regression on chosen columns: ordinary least squares by statsmodels, or ridge, with what there is to say of it.

Leaves which columns to ``choice`` and how far it can be trusted to ``resampling``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from im_datasets.calibration.fit.choice import standardise
from im_datasets.calibration.fit.observations import FloatArray, Observations
from im_datasets.common.errors import MissingExtraError

LEVEL = 0.95
"""Coverage that every interval aims at."""

PENALTIES = np.geomspace(1e-4, 1e3, 57)
"""Ridge penalties that are tried: in units of one run's worth of a standardised column, times the runs."""


@dataclass(frozen=True)
class Univariate:
    """One column alone against the log loss: slope with HC3 error, its 95 % interval, R², p and Holm's p.

    Attributes:
        vif: Variance inflation factor among all candidates; 1 = unrelated; NaN with too few runs to tell.
    """

    column: str
    slope: float
    standard_error: float
    low: float
    high: float
    r_squared: float
    p: float
    p_holm: float
    vif: float


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """An ordinary least-squares fit of n runs on k columns, as statsmodels gives it.

    Attributes:
        coefficients: Intercept first, shape (k + 1,).
        standard_errors: HC3, in the same order.
        low: Lower ends of the 95 % intervals by HC3 and Student's t.
        high: Upper ends.
        p: Two-sided p-values by HC3 and Student's t.
        vif: Variance inflation factors of the columns, shape (k,).
        r_squared: R².
        adjusted_r_squared: Adjusted R².
        loo_r_squared: R² of leave-one-out predictions, against the mean of the others.
        residual_error: Standard deviation of the residuals, in units of log loss.
        aicc: AICc, variance counted as a parameter.
        bic: BIC, variance counted as a parameter.
        breusch_pagan_p: Small where the residuals' spread moves with the columns.
        jarque_bera_p: Small where the residuals are not normal.
        fitted: Fitted log losses, shape (n,).
        left_out: Log losses predicted without the run itself, shape (n,).
        studentized: Externally studentised residuals, shape (n,).
        leverage: Diagonal of the hat matrix, shape (n,).
        cook: Cook's distances, shape (n,).
    """

    coefficients: FloatArray
    standard_errors: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    vif: FloatArray
    r_squared: float
    adjusted_r_squared: float
    loo_r_squared: float
    residual_error: float
    aicc: float
    bic: float
    breusch_pagan_p: float
    jarque_bera_p: float
    fitted: FloatArray
    left_out: FloatArray
    studentized: FloatArray
    leverage: FloatArray
    cook: FloatArray


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge fit; columns standardised, the intercept free.

    Attributes:
        coefficients: Intercept first, in the columns' own units, shape (k + 1,).
        penalty: λ of ``|y - a - Zb|² + n λ |b|²`` over standardised columns Z: the least leave-one-out error.
        path: Penalty → leave-one-out R², ascending.
        loo_r_squared: The best of them.
        degrees_of_freedom: Effective number of terms, 0..k.
        r_squared: R² over the runs themselves.
        left_out: Log losses predicted without the run itself, at this penalty, shape (n,).
    """

    coefficients: FloatArray
    penalty: float
    path: dict[float, float]
    loo_r_squared: float
    degrees_of_freedom: float
    r_squared: float
    left_out: FloatArray


def least_squares(x: FloatArray, y: FloatArray) -> LeastSquares:
    """Fit ``y = a + x b`` by ordinary least squares.

    Args:
        x: Columns, shape (n, k).
        y: Log losses, shape (n,).

    Raises:
        MissingExtraError: statsmodels is not installed.
    """
    api = statsmodels()
    from statsmodels.stats.diagnostic import het_breuschpagan
    from statsmodels.stats.stattools import jarque_bera

    # Columns of very different units would cost digits; what is fitted on standardised ones is taken back below.
    scale = x.std(axis=0)
    design = api.add_constant((x - x.mean(axis=0)) / scale, has_constant="add")
    plain = api.OLS(y, design).fit()
    robust = plain.get_robustcov_results("HC3", use_t=True)
    back = _unscaled(x.mean(axis=0), scale)
    errors = np.sqrt(np.diag(back @ robust.cov_params() @ back.T))
    coefficients = back @ plain.params
    reach = stats.t.ppf(0.5 + LEVEL / 2, plain.df_resid) * errors
    influence = plain.get_influence()
    n, k = x.shape
    # What each run's prediction without it would be follows from its leverage; nothing is fitted again.
    left_out = y - plain.resid / (1 - influence.hat_matrix_diag)
    # Criteria of statsmodels do not count the variance as a parameter; those of `choice` do.
    fit, parameters = -2 * plain.llf, k + 2
    return LeastSquares(
        coefficients=coefficients,
        standard_errors=errors,
        low=coefficients - reach,
        high=coefficients + reach,
        p=np.asarray(2 * stats.t.sf(np.abs(coefficients / errors), plain.df_resid)),
        vif=inflation(x),
        r_squared=float(plain.rsquared),
        adjusted_r_squared=float(plain.rsquared_adj),
        loo_r_squared=out_of_sample_r_squared(y, left_out, _means_of_others(y)),
        residual_error=math.sqrt(plain.mse_resid),
        aicc=float(fit + 2 * parameters + 2 * parameters * (parameters + 1) / (n - parameters - 1)),
        bic=float(fit + parameters * math.log(n)),
        breusch_pagan_p=float(het_breuschpagan(plain.resid, design)[1]),
        jarque_bera_p=float(jarque_bera(plain.resid)[1]),
        fitted=np.asarray(plain.fittedvalues),
        left_out=left_out,
        studentized=np.asarray(influence.resid_studentized_external),
        leverage=np.asarray(influence.hat_matrix_diag),
        cook=np.asarray(influence.cooks_distance[0]),
    )


def univariate(observations: Observations) -> list[Univariate]:
    """Every candidate alone, the one with the highest R² first."""
    statsmodels()
    from statsmodels.stats.multitest import multipletests

    fits = [least_squares(column[:, None], observations.log_losses) for column in observations.means.T]
    holm = multipletests([fit.p[1] for fit in fits], method="holm")[1]
    vif = inflation(observations.means)
    table = [
        Univariate(
            column=column,
            slope=float(fit.coefficients[1]),
            standard_error=float(fit.standard_errors[1]),
            low=float(fit.low[1]),
            high=float(fit.high[1]),
            r_squared=fit.r_squared,
            p=float(fit.p[1]),
            p_holm=float(adjusted),
            vif=float(factor),
        )
        for column, fit, adjusted, factor in zip(observations.columns, fits, holm, vif, strict=True)
    ]
    return sorted(table, key=lambda row: -row.r_squared)


def inflation(x: FloatArray) -> FloatArray:
    """Variance inflation factor of each column: 1 / (1 - R² of it on the others).

    Args:
        x: Columns, shape (n, k).

    Returns:
        Shape (k,), at least 1; NaN where there are not enough rows to tell.

    >>> inflation(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])).tolist()
    [1.0, 1.0]
    """
    n, k = x.shape
    if k == 1:
        return np.ones(1)
    if k > n - 2:
        return np.full(k, math.nan)
    z = standardise(x)
    # With rcond=1e-13 nearly collinear columns keep their large factors; rounding may leave 1 a little too small.
    return np.asarray(np.maximum(np.diag(np.linalg.pinv(z.T @ z / n, hermitian=True, rcond=1e-13)), 1.0))


def ridge(x: FloatArray, y: FloatArray) -> Ridge:
    """Fit with the penalty whose leave-one-out error is least.

    Args:
        x: Columns, shape (n, k).
        y: Log losses, shape (n,).
    """
    n = len(y)
    z, mean, scale = standardise(x), x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    left, sizes, right = np.linalg.svd(z, full_matrices=False)
    shrink = sizes[None, :] ** 2 / (sizes[None, :] ** 2 + n * PENALTIES[:, None])
    projected = left.T @ (y - y.mean())
    fitted = y.mean() + (shrink * projected) @ left.T
    # The free intercept has a leverage of 1 / n of its own.
    leverage = 1 / n + shrink @ (left**2).T
    left_out = y - (y - fitted) / (1 - leverage)
    scores = [out_of_sample_r_squared(y, guesses, _means_of_others(y)) for guesses in left_out]
    at = int(np.argmax(scores))
    standardised = right.T @ (sizes / (sizes**2 + n * PENALTIES[at]) * projected)
    slopes = standardised / scale
    return Ridge(
        coefficients=np.concatenate([[y.mean() - mean @ slopes], slopes]),
        penalty=float(PENALTIES[at]),
        path={float(p): s for p, s in zip(PENALTIES, scores, strict=True)},
        loo_r_squared=scores[at],
        degrees_of_freedom=float(shrink[at].sum()),
        r_squared=1 - float(((y - fitted[at]) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
        left_out=left_out[at],
    )


def out_of_sample_r_squared(y: FloatArray, guesses: FloatArray, baseline: FloatArray) -> float:
    """1 - squared error of guesses over that of a baseline made without the run either; 1 is perfect, ≤ 0 useless.

    Args:
        y: What came, shape (n,).
        guesses: Predictions for runs that the fit did not see.
        baseline: Means of the runs that the fit did see.
    """
    return 1 - float(((y - guesses) ** 2).sum() / ((y - baseline) ** 2).sum())


def statsmodels() -> Any:
    """The library's api module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import statsmodels.api as api
    except ImportError as error:
        raise MissingExtraError("a fit needs statsmodels: pip install 'im-datasets[calibrate]'") from error
    return api


def predicted(coefficients: FloatArray, x: FloatArray) -> FloatArray:
    """``a + x b``, shape (n,), for coefficients with the intercept first."""
    return np.asarray(coefficients[0] + x @ coefficients[1:])


def names_with_intercept(columns: Sequence[str]) -> tuple[str, ...]:
    """The coefficients' names, in their order."""
    return ("intercept", *columns)


def _means_of_others(y: FloatArray) -> FloatArray:
    return np.asarray((y.sum() - y) / (len(y) - 1))


def _unscaled(mean: FloatArray, scale: FloatArray) -> FloatArray:
    """The matrix that takes coefficients over standardised columns to those in the columns' own units."""
    back = np.diag(np.concatenate([[1.0], 1 / scale]))
    back[0, 1:] = -mean / scale
    return back
