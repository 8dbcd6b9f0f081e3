"""The commands of calibration: read arguments, call the package, print what came; no logic of their own.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from im_datasets.cli import options
from im_datasets.cli.options import ExperimentOptions, load_objective
from im_datasets.common.errors import CalibrationError
from im_datasets.common.untrusted import MESSAGE, shown

if TYPE_CHECKING:
    from im_datasets.calibration.fit.rule_fit import Fit
    from im_datasets.calibration.runs import Run


def calibrate(
    *data: str,
    out: Path,
    experiment: ExperimentOptions = ExperimentOptions(),
    runs: Annotated[Path | None, Parameter(metavar="RUNS.jsonl")] = None,
    name: str = "fitted",
    target: str | None = None,
    subsets: int = 64,
    rows: int = 1000,
    strata: Annotated[list[str] | None, Parameter(metavar="COLUMN")] = None,
    concentration: float = 1.0,
    disjoint: bool = False,
    column: list[str] | None = None,
    exclude: list[str] | None = None,
    choose: Annotated[str, Parameter(metavar="all-subsets|stepwise|none")] = "all-subsets",
    criterion: Annotated[str, Parameter(metavar="bic|aicc|adjusted_r2|cv_r2")] = "bic",
    max_terms: int | None = None,
    ridge: Annotated[str, Parameter(metavar="auto|always|never")] = "auto",
    resamples: Annotated[int, Parameter(validator=Number(gte=100))] = 1000,
    seed: int = 0,
) -> None:
    """Fit a rule of your own: finetune on mixtures of DATA, or take runs there are; rule.json for mine, a report.

    Args:
        data: Candidate datasets to make runs on, NAME=DATA names one; none with --runs.
        out: Folder of the runs, of rule.json and report.html.
        experiment: What is finetuned, how, and what it is measured on.
        runs: Fit on runs that were measured already.
        name: Name of the rule.
        target: Which loss to explain, where runs have several.
        subsets: Runs to make: subsets to finetune on.
        rows: Rows of each subset.
        strata: Vary the share of rows low in this column; repeatable.
        concentration: Of the mixing weights: small mixes less.
        disjoint: Let no row be in two subsets.
        column: A candidate column, instead of all that the runs have; repeatable.
        exclude: A column that is no candidate; repeatable.
        choose: How columns are chosen.
        criterion: What the chosen columns are best in.
        max_terms: The most terms; else one for every ten runs, at most six.
        ridge: Ridge regression; auto: where columns move together.
        resamples: Bootstrap resamples.
        seed: Of mixtures, folds and resamples.
    """
    if (runs is None) == (not data):
        raise CalibrationError(
            "nothing to fit on, or two things: pass DATA with --base-model and --evaluation to make runs, or "
            "--runs RUNS.jsonl, a table of finetuning runs"
        )
    from im_datasets.calibration.fit.report import write_fit
    from im_datasets.calibration.fit.rule_fit import fit_rule

    table: Path | list[Run] | None = runs
    if table is None:
        from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures

        mixing = Mixing(
            subsets=subsets,
            rows=rows,
            seed=seed,
            concentration=concentration,
            strata=strata or (),
            disjoint=disjoint,
        )
        candidates = experiment.experiment(data, out)
        table = candidates.run(draw_mixtures(candidates.pool, mixing))
        # Runs that are made here have a loss of each evaluation set; one is explained.
        target = target or candidates.evaluations[0].name
    fit = fit_rule(
        table,
        name=name,
        evaluation=target,
        columns=column,
        exclude=exclude or (),
        criterion=criterion,  # type: ignore[arg-type]
        method=choose,  # type: ignore[arg-type]
        max_terms=max_terms,
        regularise=ridge,  # type: ignore[arg-type]
        resamples=resamples,
        seed=seed,
    )
    print_fit(fit, write_fit(fit, out))


def print_fit(fit: "Fit", rule: Path) -> None:
    """Print a fit's coefficients, how far it is to be trusted, and the line to use it."""
    from im_datasets.calibration.fit.report import REPORT, use_command

    for note in fit.notes:
        print(f"note: {shown(note, MESSAGE)}")
    print(f"{shown(fit.rule.title)}; {fit.choice.looked_at:,} models compared by {fit.procedure.criterion}")
    print(f"{'':24}{'coefficient':>14}{'95 % interval':>30}{'VIF':>8}")
    vif = ["", *(f"{value:,.1f}" for value in fit.least_squares.vif)]
    rows = zip(("intercept", *fit.columns), fit.coefficients, fit.bootstrap.low, fit.bootstrap.high, vif, strict=True)
    for column, value, low, high, factor in rows:
        print(f"{shown(column):24}{value:>14.5g}{f'{low:.4g} to {high:.4g}':>30}{factor:>8}")
    print(f"R² {fit.r_squared:.3f}, cross-validated {fit.cross_validation.r_squared:.3f}")
    for caveat in fit.rule.caveats:
        print(f"- {shown(caveat, MESSAGE)}")
    print(f"Written: {rule}, {rule.with_name(REPORT)}")
    print(f"Use it: {use_command(str(rule))}")


def search_size(
    *data: options.Candidates,
    out: Annotated[Path, Parameter(help="Folder of the runs and of size_search.json, .png and .svg.")],
    experiment: ExperimentOptions = ExperimentOptions(),
    rule: options.RuleName = "embedded",
    low: Annotated[int, Parameter(help="The smallest size.")] = 512,
    high: Annotated[int | None, Parameter(help="The largest; else 10,000 or all rows.")] = None,
    trials: Annotated[int, Parameter(help="Sizes that BlendSearch tries.")] = 16,
    points: Annotated[int, Parameter(help="Sizes of the curve, with random rows beside it.")] = 6,
    seeds: options.Seeds = 1,
    target: Annotated[str | None, Parameter(help="Evaluation set to search by; else the first.")] = None,
    objective: Annotated[
        str | None, Parameter(metavar="MODULE:FUNCTION", help="Make f(rows, seed) small instead of finetuning here.")
    ] = None,
) -> None:
    """Search how many rows to keep; killed at any point, the same command goes on."""
    from im_datasets.calibration.search import Sizes, search_objective
    from im_datasets.calibration.search import search_size as search
    from im_datasets.rules.linear import LinearRule

    sizes = Sizes(low=low, high=high, trials=trials, points=points, seeds=range(seeds))
    if objective is None:
        result = search(experiment.experiment(data, out, rule), LinearRule.load(rule), sizes, target=target)
    else:
        own = load_objective(objective)
        result = search_objective(own, experiment.pool(data, out, rule), LinearRule.load(rule), sizes, folder=out)
    result.save(out)
    print(f"{'rows':>8}  {'selected':>10}  {'random':>10}")
    random = {point.rows: f"{point.loss:10.4f}" for point in result.random}
    for point in sorted(result.selected, key=lambda each: each.rows):
        mark = "  <- lowest" if point.rows == result.best.rows else ""
        print(f"{point.rows:>8,}  {point.loss:10.4f}  {random.get(point.rows, ''):>10}{mark}")
    for note in result.notes:
        print(f"note: {shown(note, MESSAGE)}")
    print(f"Use it: im-datasets mine DATA --rule {rule} --top-k {result.best.rows} --out mined")


def compare(
    *data: options.Candidates,
    out: Annotated[Path, Parameter(help="Folder of the runs and of comparison.md, .json, .png and .svg.")],
    experiment: ExperimentOptions = ExperimentOptions(),
    rule: options.RuleName = "embedded",
    size: Annotated[list[int] | None, Parameter(help="Rows to select; repeatable.")] = None,
    seeds: options.Seeds = 5,
    baseline: Annotated[
        list[str] | None,
        Parameter(metavar="random|full|length|mtld|reward|ifd|perplexity", help="Else all that can be; repeatable."),
    ] = None,
) -> None:
    """Set selected rows against random ones, all rows and one-column baselines, with intervals."""
    from im_datasets.calibration.comparison import compare as run
    from im_datasets.rules.linear import LinearRule

    arms = experiment.experiment(data, out, rule)
    comparison = run(arms, LinearRule.load(rule), sizes=size or [], seeds=range(seeds), baselines=baseline)
    comparison.save(out)
    print(comparison.table())
    for note in comparison.notes:
        print(f"note: {shown(note, MESSAGE)}")
