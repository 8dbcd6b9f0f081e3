"""The commands of calibration: read arguments, call the package, print what came; no logic of their own.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from im_datasets.cli.options import Setup, load_objective, with_setup
from im_datasets.common.errors import CalibrationError

if TYPE_CHECKING:
    from im_datasets.calibration.fit.rule_fit import Fit
    from im_datasets.calibration.runs import Run


@with_setup
def calibrate(
    out: Annotated[Path, typer.Option(help="Folder of the runs, of rule.json and report.html.")],
    setup: Setup,
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]DATA...", help="Candidate datasets to make runs on; none with --runs."),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="RUNS.jsonl", help="Fit on runs that were measured already.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the rule.")] = "fitted",
    target: Annotated[str | None, typer.Option(help="Which loss to explain, where runs have several.")] = None,
    subsets: Annotated[int, typer.Option(help="Runs to make: subsets to finetune on.")] = 64,
    rows: Annotated[int, typer.Option(help="Rows of each subset.")] = 1000,
    strata: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Vary the share of rows low in this column; repeatable.")
    ] = None,
    concentration: Annotated[float, typer.Option(help="Of the mixing weights: small mixes less.")] = 1.0,
    disjoint: Annotated[bool, typer.Option("--disjoint", help="Let no row be in two subsets.")] = False,
    column: Annotated[
        list[str] | None, typer.Option(help="A candidate column, instead of all that the runs have; repeatable.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A column that is no candidate; repeatable.")] = None,
    choose: Annotated[
        str, typer.Option(metavar="all-subsets|stepwise|none", help="How columns are chosen.")
    ] = "all-subsets",
    criterion: Annotated[
        str, typer.Option(metavar="bic|aicc|adjusted_r2|cv_r2", help="What the chosen columns are best in.")
    ] = "bic",
    max_terms: Annotated[
        int | None, typer.Option(help="The most terms; else one for every ten runs, at most six.")
    ] = None,
    ridge: Annotated[
        str, typer.Option(metavar="auto|always|never", help="Ridge regression; auto: where columns move together.")
    ] = "auto",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Of mixtures, folds and resamples.")] = 0,
) -> None:
    """Fit a rule of your own: finetune on mixtures of DATA, or take runs there are; rule.json for mine, a report."""
    if (runs is None) == (not data):
        raise CalibrationError(
            "nothing to fit on, or two things: pass DATA with --base-model and --evaluation to make runs, or "
            "--runs RUNS.jsonl, a table of finetuning runs"
        )
    made: Path | list[Run] | None = runs
    if made is None:
        from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures

        mixing = Mixing(
            subsets=subsets,
            rows=rows,
            seed=seed,
            concentration=concentration,
            strata=strata or (),
            disjoint=disjoint,
        )
        experiment = setup.experiment(data or [], out)
        made = experiment.run(draw_mixtures(experiment.pool, mixing))
        target = target or experiment.evaluations[0].name
    settings: dict[str, Any] = {
        "name": name,
        "evaluation": target,
        "columns": column,
        "exclude": exclude or (),
        "criterion": criterion,
        "method": choose,
        "max_terms": max_terms,
        "regularise": ridge,
        "resamples": resamples,
        "seed": seed,
    }
    fit_and_write(made, out, settings)


def fit_and_write(runs: "Path | list[Run]", out: Path, settings: dict[str, Any]) -> None:
    """Fit on a table of runs, write rule and report, and say what came of it.

    Args:
        runs: The table.
        out: The folder; made when it is missing.
        settings: Keyword arguments of ``fit_rule``.
    """
    from im_datasets.calibration.fit.report import write_fit
    from im_datasets.calibration.fit.rule_fit import fit_rule

    fit = fit_rule(runs, **settings)
    print_fit(fit, write_fit(fit, out))


def print_fit(fit: "Fit", rule: Path) -> None:
    """Print a fit's coefficients, how far it is to be trusted, and the line to use it."""
    from im_datasets.calibration.fit.report import REPORT, use_command

    for note in fit.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{fit.rule.title}; {fit.choice.looked_at:,} models compared by {fit.procedure.criterion}")
    typer.echo(f"{'':24}{'coefficient':>14}{'95 % interval':>30}{'VIF':>8}")
    vif = ["", *(f"{value:,.1f}" for value in fit.least_squares.vif)]
    rows = zip(("intercept", *fit.columns), fit.coefficients, fit.bootstrap.low, fit.bootstrap.high, vif, strict=True)
    for column, value, low, high, factor in rows:
        typer.echo(f"{column:24}{value:>14.5g}{f'{low:.4g} to {high:.4g}':>30}{factor:>8}")
    typer.echo(f"R² {fit.r_squared:.3f}, cross-validated {fit.cross_validation.r_squared:.3f}")
    for caveat in fit.rule.caveats:
        typer.echo(f"- {caveat}")
    typer.echo(f"Written: {rule}, {rule.with_name(REPORT)}")
    typer.echo(f"Use it: {use_command(str(rule))}")


Candidates = Annotated[
    list[str], typer.Argument(metavar="[NAME=]DATA...", help="Candidate datasets, each anything that mine reads.")
]


RuleName = Annotated[str, typer.Option(help="Name or path of the rule that selects.")]


@with_setup
def search_size(
    data: Candidates,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of size_search.json, .png and .svg.")],
    setup: Setup,
    rule: RuleName = "embedded",
    low: Annotated[int, typer.Option(help="The smallest size.")] = 512,
    high: Annotated[int | None, typer.Option(help="The largest; else 10,000 or all rows.")] = None,
    trials: Annotated[int, typer.Option(help="Sizes that BlendSearch tries.")] = 16,
    points: Annotated[int, typer.Option(help="Sizes of the curve, with random rows beside it.")] = 6,
    seeds: Annotated[int, typer.Option(help="Trainings per size, from seed 0 on.", min=1)] = 1,
    target: Annotated[str | None, typer.Option(help="Evaluation set to search by; else the first.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Make f(rows, seed) small instead of finetuning here."),
    ] = None,
) -> None:
    """Search how many rows to keep; killed at any point, the same command goes on."""
    from im_datasets.calibration.search import Sizes, search_objective
    from im_datasets.calibration.search import search_size as search
    from im_datasets.rules.linear import LinearRule

    sizes = Sizes(low=low, high=high, trials=trials, points=points, seeds=range(seeds))
    if objective is None:
        found = search(setup.experiment(data, out, rule), LinearRule.load(rule), sizes, target=target)
    else:
        own = load_objective(objective)
        found = search_objective(own, setup.pool(data, out, rule), LinearRule.load(rule), sizes, folder=out)
    found.save(out)
    typer.echo(f"{'rows':>8}  {'selected':>10}  {'random':>10}")
    random = {point.rows: f"{point.loss:10.4f}" for point in found.random}
    for point in sorted(found.selected, key=lambda each: each.rows):
        mark = "  <- lowest" if point.rows == found.best.rows else ""
        typer.echo(f"{point.rows:>8,}  {point.loss:10.4f}  {random.get(point.rows, ''):>10}{mark}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"Use it: im-datasets mine DATA --rule {rule} --top-k {found.best.rows} --out mined")


@with_setup
def compare(
    data: Candidates,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of comparison.md, .json, .png and .svg.")],
    setup: Setup,
    rule: RuleName = "embedded",
    size: Annotated[list[int] | None, typer.Option(help="Rows to select; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each arm, from seed 0 on.", min=1)] = 5,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="random|full|length|mtld|reward|ifd|perplexity", help="Else all that can be; repeatable."),
    ] = None,
) -> None:
    """Set selected rows against random ones, all rows and one-column baselines, with intervals."""
    from im_datasets.calibration.comparison import compare as run
    from im_datasets.rules.linear import LinearRule

    experiment = setup.experiment(data, out, rule)
    found = run(experiment, LinearRule.load(rule), sizes=size or [], seeds=range(seeds), baselines=baseline)
    found.save(out)
    typer.echo(found.table())
    for note in found.notes:
        typer.echo(f"note: {note}")
