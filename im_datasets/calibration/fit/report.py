"""A fit → one self-contained HTML page that shows the rule, what it rests on, and how far to trust it.

The page loads nothing and runs nothing: its content security policy allows no script at all.
"""

import math
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im_datasets.calibration.fit.diagnostic_plots import (
    alone,
    criterion_by_size,
    effects,
    leverage,
    penalties,
    prediction,
    quantiles,
    residuals,
)
from im_datasets.common.errors import OutputError, RuleError
from im_datasets.common.storage import write_text
from im_datasets.common.untrusted import shown
from im_datasets.report.figures import NARROW, WIDE, correlation_triangle
from im_datasets.report.formatting import Trusted, fact_texts
from im_datasets.report.plot_style import as_svg
from im_datasets.report.templates import html_environment, read_template
from im_datasets.rules.linear import LinearRule

if TYPE_CHECKING:
    from im_datasets.calibration.fit.rule_fit import Fit

RULE, REPORT = "rule.json", "report.html"
"""What a fit leaves in its folder."""

MOST_RUNS = 200
"""Runs listed in the report, the most influential first."""


def write_fit(fit: "Fit", folder: str | Path) -> Path:
    """Write rule and report into a folder, in place of those of an older fit.

    Args:
        fit: What to write.
        folder: Made when it is missing; what else it holds stays.

    Returns:
        The rule's path.

    Raises:
        OutputError: The folder holds a rule or report that no fit left there.
    """
    rule, report = Path(folder) / RULE, Path(folder) / REPORT
    if (rule.exists() or report.exists()) and not _is_fitted(rule):
        raise OutputError(f"{folder} holds a {RULE} or {REPORT} that is not of a fit; name another folder (--out)")
    write_fit_report(fit, report, rule_path=str(rule))
    fit.rule.save(rule)
    return rule


def write_fit_report(fit: "Fit", path: str | Path, *, rule_path: str = "rule.json") -> Path:
    """Write the report beside its place and move it there when it is whole.

    Args:
        fit: What to show.
        path: The file to write; an older one is replaced.
        rule_path: Where the rule's JSON is, for the command that uses it.

    Returns:
        The path.

    Raises:
        OutputError: The templates are missing from the installation.
    """
    return write_text(path, render_fit_report(fit, rule_path=rule_path))


def render_fit_report(fit: "Fit", *, rule_path: str = "rule.json") -> str:
    """The report as HTML text; arguments as for ``write_fit_report``."""
    from markupsafe import Markup

    from im_datasets.common.version import __version__

    template = html_environment().from_string(read_template("fit.html"))
    plain, bootstrap = fit.least_squares, fit.bootstrap
    return template.render(
        package_version=__version__,
        style=Markup(read_template("report.css")),  # noqa: S704 - our own file
        decimals=_decimals,
        p_value=_p_value,
        fit=fit,
        rule=fit.rule,
        command=use_command(rule_path),
        base_model=shown(fit.observations.base_model.get("id", "base model not stated")),
        evaluation=shown(fit.observations.evaluation),
        headline=_headline(fit),
        lead=_lead(fit),
        order=bootstrap.order_interval(),
        choice_note=_choice_note(fit),
        chosen=sorted(zip(fit.observations.columns, bootstrap.chosen.tolist(), strict=True), key=lambda pair: -pair[1]),
        influential=np.argsort(-plain.cook, kind="stable").tolist()[:MOST_RUNS],
        # A float overflows beyond exp(709).
        left_out=np.exp(np.minimum(fit.ridge.left_out if fit.ridge else plain.left_out, 700.0)),
        facts=fact_texts({k: v for k, v in fit.rule.provenance.items() if k != "coefficients"}),
        figures=_figures(fit),
    )


def use_command(rule_path: str) -> str:
    """The one line that uses a rule."""
    return f"im-datasets mine DATA --rule {shlex.quote(rule_path)} --fraction 0.1 --out mined"


def _is_fitted(path: Path) -> bool:
    try:
        return LinearRule.load(path).provenance.get("kind") == "fitted"
    except RuleError:
        return False


def _headline(fit: "Fit") -> str:
    terms = f"{len(fit.columns)} term" + "s" * (len(fit.columns) > 1)
    share = fit.cross_validation.r_squared
    if share <= 0:
        return f"A rule of {terms} that does not predict the loss of runs it has not seen"
    return f"A rule of {terms} explains {100 * share:.0f} % of the differences in loss that it has not seen"


def _lead(fit: "Fit") -> str:
    fits = f"{len(fit.observations)} finetuned models" if len(fit.observations) > 1 else "one model"
    first = fit.univariate[0]
    return (
        f"Fitted on {fits}: the log of each one's loss against the mean indicators of the rows it was trained on. "
        f"Alone, {shown(first.column, 60)} explains most, with an R² of {first.r_squared:.2f}."
    )


def _choice_note(fit: "Fit") -> str:
    names = {"aicc": "AICc", "bic": "BIC", "adjusted_r2": "adjusted R²", "cv_r2": "leave-one-out R²"}
    candidates = len(fit.observations.columns)
    if fit.procedure.method == "none":
        return f"They were not: all {candidates} candidates are in the rule, as asked."
    way = "every subset" if fit.procedure.method == "all-subsets" else "forward steps"
    return (
        f"{names[fit.procedure.criterion]} over {way} of {candidates} candidates, at most {fit.most} terms: "
        f"{fit.choice.looked_at:,} models compared. A column that other draws of the same runs rarely choose is in the "
        "rule by luck."
    )


def _figures(fit: "Fit") -> dict[str, Any]:
    """Name → SVG, for a page; a figure that would show nothing is left out."""
    names = fit.observations.columns
    figures = {
        "effects-wide": (effects(fit, width=WIDE), "Effects of the terms"),
        "effects-narrow": (effects(fit, width=NARROW), "Effects of the terms"),
        "prediction": (prediction(fit), "Predicted against measured log losses"),
        "residuals-0": (residuals(fit), "Residuals against fitted"),
        "residuals-1": (quantiles(fit), "Normal quantiles"),
        "residuals-2": (leverage(fit), "Leverage"),
    }
    for i, row in enumerate(fit.univariate):
        figures[f"alone-{i}"] = (alone(fit, row), f"{shown(row.column)} against log loss")
    if len(fit.choice.best_by_size) > 1:
        figures["by-size"] = (criterion_by_size(fit), "Criterion by number of terms")
    if fit.ridge:
        figures["penalties"] = (penalties(fit.ridge), "R² along the penalty")
    if len(names) > 1:
        matrix = np.atleast_2d(np.corrcoef(fit.observations.means, rowvar=False))
        short_names = [shown(name, 22) for name in names]
        figures["triangle"] = (correlation_triangle(short_names, matrix), "Correlations of the subset means")
    return {name: _svg(figure, name, label) for name, (figure, label) in figures.items()}


def _svg(figure: Any, name: str, label: str) -> Any:
    from markupsafe import Markup

    with warnings.catch_warnings():
        # Names of columns are in the page's font, which need not be one of matplotlib's.
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support", category=UserWarning)
        return Markup(as_svg(figure, name=name, label=label))  # noqa: S704 - texts are escaped by the drawing


def _decimals(value: float | None, places: int = 2) -> Trusted:
    if value is None or not math.isfinite(value):
        return Trusted("–")
    return Trusted(f"{value:.{places}f}".replace("-", "−"))


def _p_value(value: float) -> Trusted:
    if not math.isfinite(value):
        return Trusted("–")
    return Trusted("< 0.0001" if value < 1e-4 else f"{value:.4f}")
