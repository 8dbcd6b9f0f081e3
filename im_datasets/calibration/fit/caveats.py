"""What a reader must know of a fit before trusting it, each sentence from a fact of that fit."""

import math
from collections.abc import Iterator

import numpy as np

from im_datasets.calibration.fit.evidence import Evidence
from im_datasets.calibration.fit.observations import FloatArray, Observations
from im_datasets.calibration.fit.procedure import HIGH_INFLATION, RUNS_PER_TERM
from im_datasets.calibration.fit.regression import LeastSquares
from im_datasets.calibration.fit.resampling import Bootstrap, CrossValidation
from im_datasets.indicators.score_columns import COLUMNS

ALIKE = 0.95
"""Correlation of two candidates from which the report speaks of them as nearly the same."""

_PAPERS_PAIR = {"im_naturalness", "im_understandability"}
_SMALL_P = 0.01


def caveats(fit: Evidence) -> tuple[str, ...]:
    """The sentences, the gravest first."""
    return (
        *_of_the_prediction(fit.cross_validation, fit.bootstrap),
        *_of_the_columns(fit),
        *_of_the_choice(fit),
        *_of_the_residuals(fit.observations, fit.least_squares),
        *_of_the_runs(fit.observations, fit.columns),
    )


def _of_the_prediction(validation: CrossValidation, intervals: Bootstrap) -> Iterator[str]:
    if validation.r_squared <= 0:
        yield (
            f"Cross-validated R² is {validation.r_squared:.2f}: on runs it has not seen this rule does no better than "
            "their mean. Do not select by it."
        )
    elif validation.r_squared < 0.3:
        yield f"Cross-validated R² is {validation.r_squared:.2f}: most of what moves the loss is not in this rule."
    median, low, _ = intervals.order_interval()
    if low < 0.5:
        yield (
            f"The predicted order is not settled: over resampled runs Kendall's tau with the fit's own order has a "
            f"median of {median:.2f} and goes down to {low:.2f} (1 = same order, 0 = unrelated)."
        )


def _of_the_columns(fit: Evidence) -> Iterator[str]:
    names = fit.columns
    high = [f"{n} ({v:,.0f})" for n, v in zip(names, fit.least_squares.vif, strict=True) if v > HIGH_INFLATION]
    if high:
        remedy = "the rule takes ridge coefficients" if fit.ridge else "the rule takes them all the same"
        yield (
            f"Variance inflation is above {HIGH_INFLATION:.0f} for {', '.join(high)}: these columns move together, "
            f"their single coefficients mean little, and {remedy}."
        )
    for left, right, r in nearly_the_same(fit.observations):
        pair = f"{left} and {right} are nearly the same number over these runs (r = {r:.4f})"
        paper = {left, right} == _PAPERS_PAIR
        precedent = ", as they were in the paper, whose rule takes both with opposite signs" if paper else ""
        yield f"{pair}{precedent}: {_advice_on_pair(fit, left, right, r)}."
    if fit.ridge is not None:
        yield (
            "Ridge coefficients are biased towards 0 on purpose; standard errors and p-values in the provenance are "
            "those of least squares on the same columns."
        )


def _advice_on_pair(fit: Evidence, left: str, right: str, r: float) -> str:
    """What the rule does with two columns that are nearly the same number."""
    coefficients = dict(zip(fit.columns, fit.coefficients[1:].tolist(), strict=True))
    if not {left, right} <= set(coefficients):
        return "either could stand for both"
    if coefficients[left] * coefficients[right] * r < 0:
        return "their terms here work against each other and nearly cancel; a rule with one of them is safer"
    return "how their shared effect is divided between their two terms means nothing"


def nearly_the_same(observations: Observations) -> list[tuple[str, str, float]]:
    """Pairs of candidates with a correlation of at least ``ALIKE``, either sign, strongest first."""
    matrix: FloatArray = np.atleast_2d(np.corrcoef(observations.means, rowvar=False))
    names = observations.columns
    pairs = [(names[j], names[i], float(matrix[i, j])) for i in range(len(names)) for j in range(i)]
    return sorted((pair for pair in pairs if abs(pair[2]) >= ALIKE), key=lambda pair: -abs(pair[2]))


def _of_the_choice(fit: Evidence) -> Iterator[str]:
    runs, terms = fit.observations.subsets, len(fit.columns)
    if fit.choice.looked_at > 1:
        yield (
            f"The criterion {fit.procedure.criterion} compared {fit.choice.looked_at:,} models on the same runs, so "
            "p-values, standard errors and R² are optimistic; the cross-validated R² repeats that choice and is not."
        )
    if runs < RUNS_PER_TERM * terms:
        yield f"{runs} runs for {terms} terms: fewer than {RUNS_PER_TERM} runs a term, so coefficients are uncertain."


def _of_the_residuals(observations: Observations, plain: LeastSquares) -> Iterator[str]:
    if plain.breusch_pagan_p < _SMALL_P:
        yield (
            f"The residuals' spread moves with the indicators (Breusch-Pagan p = {plain.breusch_pagan_p:.2g}); HC3 "
            "standard errors allow for that."
        )
    if plain.jarque_bera_p < _SMALL_P:
        yield f"The residuals are not normal (Jarque-Bera p = {plain.jarque_bera_p:.2g}); look at their plot."
    # NaN is a run of leverage 1, which the fit follows wherever it lies.
    if heavy := [r for r, d in zip(observations.runs, plain.cook, strict=True) if d > 1 or math.isnan(d)]:
        yield f"Single runs carry the fit (Cook's distance above 1): {', '.join(heavy[:5])}."


def _of_the_runs(observations: Observations, chosen: tuple[str, ...]) -> Iterator[str]:
    if not observations.base_model:
        yield "The runs do not state their base model."
    else:
        name = observations.base_model.get("id", "one base model")
        yield f"Fitted for {name}; the coefficients are not known to carry over to another model."
    if observations.subsets < len(observations):
        yield (
            f"The {len(observations)} runs were trained on {observations.subsets} different subsets: folds and "
            "resamples keep copies of one together, but standard errors, p-values, criteria and leave-one-out errors "
            "count each run and are optimistic."
        )
    if observations.varied:
        yield f"The runs were not trained alike: they differ in {', '.join(observations.varied)}."
    needed = {COLUMNS[column].indicator for column in chosen if column in COLUMNS}
    if needed - set(observations.indicators):
        yield "The runs do not state the settings of all their indicators; the defaults are assumed."
    yield (
        "Fitted on means of subsets, applied to rows: rows differ far more than means do, so the prediction for a row "
        "is an extrapolation, and only the order is used."
    )
