"""The figures of a fit: does it predict, what each column does, are the residuals in order."""

from typing import TYPE_CHECKING

import numpy as np

from im_datasets.calibration.fit.observations import FloatArray
from im_datasets.calibration.fit.regression import Ridge, Univariate
from im_datasets.common.untrusted import shown
from im_datasets.report.plot_style import COLOURS, blank, number_axis, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from im_datasets.calibration.fit.rule_fit import Fit

SIZE = 320
"""Width and about the height of a small figure, in CSS pixels."""

_LEGIBLE = 26
"""Characters of a column's name that fit beside its bar."""


def prediction(fit: "Fit") -> "Figure":
    """Out-of-fold predictions against measured log losses, with the line on which they would be equal."""
    guesses, measured = fit.cross_validation.predictions, fit.observations.log_losses
    figure, axes = _small("predicted without the run itself", "measured log loss")
    ends = _range(np.concatenate([guesses, measured]))
    axes.plot(ends, ends, color=COLOURS["cut"], linewidth=1.2, dashes=(4, 3))
    _dots(axes, guesses, measured)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    return figure


def effects(fit: "Fit", *, width: int) -> "Figure":
    """Each term's change of log loss for one standard deviation of the subset means, with its bootstrap interval.

    Args:
        fit: The fit.
        width: In CSS pixels.
    """
    spread = fit.means.std(axis=0)
    count = len(fit.columns)
    figure = blank(width, 56 + 44 * count)
    if width > 600:
        # Names stand in a margin of their own, at the height of their bars.
        ticks, label = 7, "change of log loss for one standard deviation of the subset means"
        name_x, name_above, name_side = -0.02, 0.0, "right"
    else:
        ticks, label = 4, "log loss for one standard deviation"
        name_x, name_above, name_side = 0.0, 0.32, "left"
    axes = styled(figure.subplots())
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    for i, column in enumerate(fit.columns):
        ends = (fit.coefficients, fit.bootstrap.low, fit.bootstrap.high)
        value, low, high = (float(spread[i] * coefficients[i + 1]) for coefficients in ends)
        colour = COLOURS["kept"] if high < 0 else COLOURS["cut"] if low > 0 else COLOURS["muted"]
        axes.plot([low, high], [i, i], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot([value], [i], "o", color=colour, markersize=8)
        axes.text(
            name_x,
            i - name_above,
            shown(column, _LEGIBLE),
            ha=name_side,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=12,
            color=COLOURS["ink"],
            # A dollar sign in a column's name is no mathematics.
            parse_math=False,
        )
    # The first term on top.
    axes.set_ylim(count - 0.5, -0.6)
    axes.set_yticks([])
    number_axis(axes.xaxis, ticks)
    axes.set_xlabel(label, labelpad=8)
    return figure


def alone(fit: "Fit", row: Univariate) -> "Figure":
    """One candidate's subset means against log losses, with the line through them."""
    values = fit.observations.means[:, fit.observations.columns.index(row.column)]
    losses = fit.observations.log_losses
    figure, axes = _small("subset mean", "log loss", height=230)
    _dots(axes, values, losses, chosen=row.column in fit.columns)
    ends = np.array([values.min(), values.max()])
    axes.plot(ends, losses.mean() + row.slope * (ends - values.mean()), color=COLOURS["ink"], linewidth=1.4)
    return figure


def residuals(fit: "Fit") -> "Figure":
    """Studentised residuals against fitted values: a level band without a shape is what is wanted."""
    plain = fit.least_squares
    figure, axes = _small("fitted log loss", "studentised residual")
    for level in (-2, 0, 2):
        axes.axhline(level, color=COLOURS["line" if level else "muted"], linewidth=1.2)
    _dots(axes, plain.fitted, plain.studentized)
    return figure


def quantiles(fit: "Fit") -> "Figure":
    """Studentised residuals against normal quantiles: on the line where they are normal."""
    from scipy import stats

    ordered = np.sort(fit.least_squares.studentized)
    n = len(ordered)
    expected = np.asarray(stats.norm.ppf((np.arange(1, n + 1) - 0.5) / n))
    figure, axes = _small("normal quantile", "studentised residual")
    axes.plot(_range(expected), _range(expected), color=COLOURS["cut"], linewidth=1.2, dashes=(4, 3))
    _dots(axes, expected, ordered)
    return figure


def leverage(fit: "Fit") -> "Figure":
    """Leverage against studentised residuals, with the lines beyond which Cook's distance is above 1."""
    plain = fit.least_squares
    figure, axes = _small("leverage", "studentised residual")
    _dots(axes, plain.leverage, plain.studentized)
    bounds = axes.get_xlim(), axes.get_ylim()
    # The lines are infinite at a leverage of 0.
    grid = np.linspace(max(1e-4, bounds[0][0]), min(0.999, bounds[0][1]), 200)
    for sign in (-1, 1):
        edge = sign * np.sqrt((len(fit.columns) + 1) * (1 - grid) / grid)
        axes.plot(grid, edge, color=COLOURS["cut"], linewidth=1.2, dashes=(4, 3))
    axes.set_xlim(*bounds[0])
    axes.set_ylim(*bounds[1])
    return figure


def criterion_by_size(fit: "Fit") -> "Figure":
    """The criterion's best value for every number of terms that was looked at."""
    best = fit.choice.best_by_size
    figure, axes = _small("terms", f"best {fit.procedure.criterion}")
    axes.plot(list(best), list(best.values()), "o-", color=COLOURS["kept"], markersize=7, linewidth=1.6)
    axes.plot(
        [len(fit.columns)], [fit.choice.value], "o", markersize=14, fillstyle="none", color=COLOURS["cut"], mew=1.6
    )
    axes.set_xticks(list(best))
    axes.margins(x=0.1, y=0.15)
    return figure


def penalties(fit: Ridge) -> "Figure":
    """Leave-one-out R² along the ridge penalty, the chosen one marked."""
    figure, axes = _small("log10 of the ridge penalty", "leave-one-out R²")
    axes.plot(np.log10(list(fit.path)), list(fit.path.values()), color=COLOURS["kept"], linewidth=1.8)
    axes.axvline(float(np.log10(fit.penalty)), color=COLOURS["cut"], linewidth=1.4)
    return figure


def _small(x: str, y: str, height: int = 290) -> "tuple[Figure, Axes]":
    figure = blank(SIZE, height)
    axes = styled(figure.subplots())
    number_axis(axes.xaxis, 4)
    number_axis(axes.yaxis, 5)
    axes.set_xlabel(x, labelpad=8)
    axes.set_ylabel(y, labelpad=6)
    return figure, axes


def _dots(axes: "Axes", x: FloatArray, y: FloatArray, *, chosen: bool = True) -> None:
    axes.plot(x, y, "o", color=COLOURS["kept" if chosen else "muted"], markersize=5, alpha=0.65, markeredgewidth=0)


def _range(values: FloatArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
