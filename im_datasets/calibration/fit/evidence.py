"""All that is known of a fit, in one dataclass that rule, caveats, report and figures read."""

from dataclasses import dataclass

from im_datasets.calibration.fit.choice import Choice
from im_datasets.calibration.fit.observations import FloatArray, Observations
from im_datasets.calibration.fit.procedure import Procedure
from im_datasets.calibration.fit.regression import LeastSquares, Ridge, Univariate, predicted
from im_datasets.calibration.fit.resampling import Bootstrap, CrossValidation


@dataclass(frozen=True, eq=False)
class Evidence:
    """What runs gave when columns were chosen and fitted, and how far that is to be trusted.

    Attributes:
        name: The rule's name.
        observations: What was regressed on.
        procedure: How columns were chosen and fitted.
        most: The most terms a model could have.
        seed: Of folds and resamples.
        choice: What was chosen.
        univariate: Every candidate alone.
        least_squares: Ordinary least squares on the chosen columns, also where the rule takes ridge.
        ridge: Ridge on the chosen columns; None where the rule is by least squares.
        cross_validation: Of the whole procedure.
        bootstrap: Intervals of coefficients and order.
        notes: What was left out when the runs were read.
    """

    name: str
    observations: Observations
    procedure: Procedure
    most: int
    seed: int
    choice: Choice
    univariate: tuple[Univariate, ...]
    least_squares: LeastSquares
    ridge: Ridge | None
    cross_validation: CrossValidation
    bootstrap: Bootstrap
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The chosen columns."""
        return tuple(self.observations.columns[i] for i in self.choice.columns)

    @property
    def coefficients(self) -> FloatArray:
        """Intercept and chosen columns, shape (k + 1,)."""
        return self.least_squares.coefficients if self.ridge is None else self.ridge.coefficients

    @property
    def r_squared(self) -> float:
        """R² of the rule's coefficients over the runs themselves."""
        return self.least_squares.r_squared if self.ridge is None else self.ridge.r_squared

    @property
    def means(self) -> FloatArray:
        """Mean indicators of the chosen columns, shape (n, k)."""
        return self.observations.means[:, list(self.choice.columns)]

    @property
    def fitted(self) -> FloatArray:
        """The rule's log loss of every run, shape (n,)."""
        return predicted(self.coefficients, self.means)
