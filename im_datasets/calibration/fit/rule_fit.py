"""Runs → a fitted rule, with everything that is known about how good it is.

``fit_rule`` is the one call; ``Fit.rule`` is what ``mine --rule`` takes, ``fit_report`` shows the rest.
"""

import platform
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from im_datasets.calibration.fit.caveats import caveats
from im_datasets.calibration.fit.choice import Criterion, Method
from im_datasets.calibration.fit.evidence import Evidence
from im_datasets.calibration.fit.observations import observe
from im_datasets.calibration.fit.procedure import Procedure, Regularise
from im_datasets.calibration.fit.regression import least_squares, names_with_intercept, ridge, univariate
from im_datasets.calibration.fit.resampling import bootstrap, cross_validate
from im_datasets.calibration.runs import Run, Runs, read_runs
from im_datasets.common.version import __version__
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.rules.linear import LinearRule, Term

CHOICES_PER_RESAMPLE = 5
"""Coefficients are cheap to fit again, choices are not: one choice is repeated for so many resamples."""


class Fit(Evidence):
    """A fitted rule and what is known about it; its attributes are those of ``Evidence``."""

    @cached_property
    def rule(self) -> LinearRule:
        """The rule, with its provenance and caveats."""
        return _rule(self)


def fit_rule(
    runs: str | Path | Runs | Iterable[Run],
    *,
    name: str = "fitted",
    evaluation: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    criterion: Criterion = "bic",
    method: Method = "all-subsets",
    max_terms: int | None = None,
    regularise: Regularise = "auto",
    folds: int = 10,
    repeats: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit ``log loss = intercept + Σ coefficient · mean indicator`` on finetuning runs.

    Args:
        runs: A table of runs or its path; of a table, the runs of kind ``calibration``.
        name: The rule's name.
        evaluation: Which loss to explain; None = the only one there is.
        columns: Candidate columns; None = every column that the runs have.
        exclude: Columns that are no candidates.
        criterion: What the chosen model is best in: ``bic``, ``aicc``, ``adjusted_r2`` or ``cv_r2``.
        method: ``all-subsets``, ``stepwise``, or ``none`` for all candidates as they are.
        max_terms: The most terms; None = one for every ten runs on different subsets, at most six.
        regularise: Ridge: ``auto`` = where a variance inflation factor is above 10, ``always`` or ``never``.
        folds: Folds of the cross-validation.
        repeats: Times it is repeated.
        resamples: Bootstrap resamples for the coefficients; a fifth as many for the predicted order.
        seed: Of folds and resamples.

    Raises:
        CalibrationError: The runs cannot carry such a fit; the message says why and what to do.
        MissingExtraError: statsmodels is not installed.
    """
    table = read_runs(runs) if isinstance(runs, str | Path) else runs if isinstance(runs, Runs) else Runs(tuple(runs))
    observations = observe(table.of_kind("calibration"), evaluation=evaluation, columns=columns, exclude=exclude)
    procedure = Procedure(criterion, method, max_terms, regularise)
    most = procedure.terms(observations.subsets, len(observations.columns))
    x, y = observations.means, observations.log_losses
    alone = tuple(univariate(observations))
    choice = procedure.estimate(x, y, most=most).choice
    chosen = x[:, list(choice.columns)]
    plain = least_squares(chosen, y)
    penalised = ridge(chosen, y) if procedure.wants_ridge(chosen) else None
    coefficients = plain.coefficients if penalised is None else penalised.coefficients
    common: dict[str, Any] = {"subset": observations.subset, "most": most, "seed": seed}
    validation = cross_validate(procedure, x, y, folds=folds, repeats=repeats, **common)
    intervals = bootstrap(
        procedure,
        x,
        y,
        choice.columns,
        coefficients,
        penalty=0.0 if penalised is None else penalised.penalty,
        resamples=resamples,
        choices=max(20, resamples // CHOICES_PER_RESAMPLE),
        **common,
    )
    return Fit(
        name=name,
        observations=observations,
        procedure=procedure,
        most=most,
        seed=seed,
        choice=choice,
        univariate=alone,
        least_squares=plain,
        ridge=penalised,
        cross_validation=validation,
        bootstrap=intervals,
        notes=table.notes,
    )


def _rule(fit: Fit) -> LinearRule:
    observations = fit.observations
    model = observations.base_model.get("id", "a base model that is not stated")
    return LinearRule(
        name=fit.name,
        title=f"Fitted on {len(observations)} finetuning runs of {model}",
        intercept=float(fit.coefficients[0]),
        terms=tuple(Term(column, float(b)) for column, b in zip(fit.columns, fit.coefficients[1:], strict=True)),
        target=f"log of the mean inference loss on {observations.evaluation}, nats per response token, of {model}",
        aggregation="fitted on subset means, applied to each row",
        indicators=_settings(fit),
        provenance={key: value for key, value in _provenance(fit).items() if value not in (None, {}, "")},
        caveats=caveats(fit),
    )


def _settings(fit: Fit) -> dict[str, dict[str, Any]]:
    """Settings of the indicators that write the rule's columns, and of those of the user's own."""
    settings = fit.observations.indicators
    classes = [COLUMNS[column].indicator for column in fit.columns if column in COLUMNS]
    shipped = {column.indicator for column in COLUMNS.values()}
    # Which of the user's own indicators writes a column is not stated: with one such column, all of them come along.
    own = [name for name in settings if name not in shipped and len(classes) < len(fit.columns)]
    return {name: dict(settings.get(name, {})) for name in dict.fromkeys((*classes, *own))}


def _provenance(fit: Fit) -> dict[str, Any]:
    observations, rows = fit.observations, fit.observations.rows
    one_size = len(set(rows)) == 1
    return {
        "kind": "fitted",
        "source": "fitted by im-datasets on finetuning runs",
        "runs": len(observations),
        "subsets": observations.subsets,
        "rows_per_run": (rows[0] if one_size else [min(rows), max(rows)]) if rows else None,
        "base_model": dict(observations.base_model),
        "evaluation_set": observations.evaluation,
        "evaluation_digest": observations.evaluation_digest,
        "training": dict(observations.training),
        "means": {
            column: {"low": float(means.min()), "high": float(means.max())}
            for column, means in zip(observations.columns, observations.means.T, strict=True)
        },
        **_model_facts(fit),
        **_trust_facts(fit),
        "seed": fit.seed,
        "versions": {
            "im-datasets": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("statsmodels", "scipy", "numpy")},
        },
    }


def _model_facts(fit: Fit) -> dict[str, Any]:
    return {
        "estimator": "ordinary least squares" if fit.ridge is None else "ridge regression",
        "ridge_penalty": None if fit.ridge is None else fit.ridge.penalty,
        "candidates": list(fit.observations.columns),
        "criterion": fit.procedure.criterion,
        "method": fit.procedure.method,
        "models_compared": fit.choice.looked_at,
        "most_terms": fit.most,
        "coefficients": _coefficients(fit),
    }


def _trust_facts(fit: Fit) -> dict[str, Any]:
    plain, validation, intervals = fit.least_squares, fit.cross_validation, fit.bootstrap
    median, low, high = intervals.order_interval()
    anew = "" if fit.procedure.method == "none" else ", columns chosen anew in each"
    return {
        "r_squared": fit.r_squared,
        "adjusted_r_squared": plain.adjusted_r_squared,
        "leave_one_out_r_squared": plain.loo_r_squared if fit.ridge is None else fit.ridge.loo_r_squared,
        "cross_validated_r_squared": validation.r_squared,
        "cross_validated_rank_correlation": validation.rank_correlation,
        "cross_validation": f"{validation.folds} folds, {validation.repeats} times{anew}",
        "order_stability": {"kendall_tau_median": median, "low": low, "high": high},
        "bootstrap": f"{intervals.resamples} resamples of subsets; order: {len(intervals.order)}{anew}",
    }


def _coefficients(fit: Fit) -> dict[str, Any]:
    """Every coefficient's statistics; standard errors and p-values are of least squares."""
    plain, intervals = fit.least_squares, fit.bootstrap
    return {
        name: {
            "least_squares": float(plain.coefficients[i]),
            "standard_error_hc3": float(plain.standard_errors[i]),
            "p": float(plain.p[i]),
            **({} if fit.ridge is None else {"ridge": float(fit.ridge.coefficients[i])}),
            "bootstrap_low": float(intervals.low[i]),
            "bootstrap_high": float(intervals.high[i]),
            "same_sign": float(intervals.same_sign[i]),
            **({"vif": float(plain.vif[i - 1])} if i else {}),
        }
        for i, name in enumerate(names_with_intercept(fit.columns))
    }
