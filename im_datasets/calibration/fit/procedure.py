"""The whole way from runs to coefficients, as one thing that can be done again on a fold or a resample."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from im_datasets.calibration.fit.choice import CRITERIA, METHODS, Choice, Criterion, Method, choose
from im_datasets.calibration.fit.observations import SPARE, FloatArray
from im_datasets.calibration.fit.regression import inflation, ridge
from im_datasets.common.errors import CalibrationError

Regularise = Literal["auto", "always", "never"]
"""Ridge where the largest variance inflation factor is above ``HIGH_INFLATION``, always, or never."""

REGULARISE: tuple[Regularise, ...] = get_args(Regularise)

HIGH_INFLATION = 10.0
"""The usual bound: above it, a coefficient's error is more than three times what it would be alone."""

RUNS_PER_TERM, MOST_TERMS = 10, 6


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a procedure made of some runs.

    Attributes:
        choice: The chosen columns.
        coefficients: Intercept and every candidate's coefficient, 0 where it was not chosen, shape (p + 1,).
        is_ridge: Whether they are ridge coefficients.
    """

    choice: Choice
    coefficients: FloatArray
    is_ridge: bool


@dataclass(frozen=True)
class Procedure:
    """How columns are chosen and coefficients estimated.

    Attributes:
        criterion: What the chosen model is best in.
        method: Which models are looked at.
        most: The most terms; None = one for every ten runs, at most six, and all columns with method ``none``.
        regularise: When ridge takes the place of least squares.
    """

    criterion: Criterion = "bic"
    method: Method = "all-subsets"
    most: int | None = None
    regularise: Regularise = "auto"

    def __post_init__(self) -> None:
        """Refuse names that are not known.

        Raises:
            CalibrationError: An unknown criterion, method or regularisation, or fewer than one term.
        """
        for name, accepted in (("criterion", CRITERIA), ("method", METHODS), ("regularise", REGULARISE)):
            if getattr(self, name) not in accepted:
                raise CalibrationError(f"{name} is one of {', '.join(accepted)}; got {getattr(self, name)!r}")
        if self.most is not None and self.most < 1:
            raise CalibrationError(f"a rule has at least one term; got {self.most} as the most (--max-terms)")

    def terms(self, runs: int, candidates: int) -> int:
        """The most terms a fit of so many runs may have, runs on one subset counted once.

        Raises:
            CalibrationError: More terms are asked for than the runs can carry.
        """
        terms = candidates if self.method == "none" else self.most
        if terms is None:
            return min(candidates, MOST_TERMS, max(1, runs // RUNS_PER_TERM))
        terms = min(terms, candidates)
        if runs < terms + SPARE:
            raise CalibrationError(
                f"{runs} runs are too few for {terms} terms: at least {terms + SPARE}, better {RUNS_PER_TERM * terms} "
                "(runs on one subset count once); make more runs, or fit fewer terms (--max-terms, --column)"
            )
        return terms

    def estimate(self, x: FloatArray, y: FloatArray, *, most: int) -> Estimate:
        """Choose columns and fit them.

        Args:
            x: Candidates, shape (n, p).
            y: Log losses, shape (n,).
            most: The most terms.
        """
        choice = choose(x, y, criterion=self.criterion, method=self.method, most=most)
        chosen = x[:, list(choice.columns)]
        is_ridge = self.wants_ridge(chosen)
        fitted = ridge(chosen, y).coefficients if is_ridge else quick_least_squares(chosen, y)
        coefficients = np.zeros(x.shape[1] + 1)
        # Of all candidates, so that a fit of other columns can be compared and predicted with.
        coefficients[[0, *(1 + i for i in choice.columns)]] = fitted
        return Estimate(choice, coefficients, is_ridge)

    def wants_ridge(self, x: FloatArray) -> bool:
        """Whether columns are to be fitted by ridge."""
        if self.regularise == "auto":
            return bool(inflation(x).max() > HIGH_INFLATION)
        return self.regularise == "always"


def quick_least_squares(x: FloatArray, y: FloatArray) -> FloatArray:
    """Ordinary least squares alone: intercept and coefficients, shape (k + 1,)."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    slopes = np.linalg.lstsq((x - mean) / scale, y - y.mean(), rcond=1e-10)[0] / scale
    return np.concatenate([[y.mean() - mean @ slopes], slopes])
