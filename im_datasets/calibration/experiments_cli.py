"""The commands search-size and compare: read arguments, call the package, print what came."""

from pathlib import Path
from typing import Annotated

import typer

from im_datasets.cli.options import Setup, load_objective, with_setup

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
