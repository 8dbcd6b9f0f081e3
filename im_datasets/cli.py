"""The command line: reads arguments, calls the package, prints a summary; no logic of its own.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from im_datasets.errors import ImDatasetsError, SelectionError

if TYPE_CHECKING:
    from im_datasets.pipeline import Mined

app = typer.Typer(
    help="Find the rows of an instruction dataset that are worth training on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from im_datasets import __version__

        typer.echo(f"im-datasets {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def mine(
    data: Annotated[
        str,
        typer.Argument(
            help="A JSON, JSONL, CSV or Parquet file, a glob or folder of them, "
            "a folder saved by datasets, or the id of a Hub dataset."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    rule: Annotated[
        str, typer.Option(help="A shipped rule's name (see: im-datasets rules) or the path of a rule's JSON.")
    ] = "embedded",
    top_k: Annotated[int | None, typer.Option(help="Keep this many rows.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Keep this share of the scorable rows.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Keep rows with a score (im_log_loss) of at most this.")
    ] = None,
    per_group: Annotated[
        str | None, typer.Option(metavar="COLUMN=QUOTA", help="Keep at most QUOTA rows per value of COLUMN.")
    ] = None,
    near_duplicates: Annotated[
        float | None, typer.Option(metavar="COSINE", help="Of two rows at least this alike, drop the worse.")
    ] = None,
    exclude_contaminated: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Drop rows that repeat an instruction of this evaluation set."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="instruction=…,response=…", help="Which columns hold what, where it cannot be told."),
    ] = None,
    every_turn: Annotated[
        bool, typer.Option("--every-turn", help="Score every assistant turn as a row of its own.")
    ] = False,
    config: Annotated[str | None, typer.Option(help="Config of a Hub dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub or saved dataset.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Stream a Hub dataset instead of downloading it whole.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Read at most this many rows.")] = None,
    seed: Annotated[int, typer.Option(help="Recorded with the selection.")] = 0,
    license: Annotated[str | None, typer.Option(help="Licence of the rows, for the card.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language code of the rows, for the card; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result in the folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and show no progress.")] = False,
) -> None:
    """Score a dataset, keep the best rows, and write data, card, record and report."""
    from im_datasets import pipeline
    from im_datasets.columns import Columns

    mapping = None if columns is None else Columns.parse(columns)
    try:
        mined = pipeline.mine(
            data,
            out,
            rule=rule,
            top_k=top_k,
            fraction=fraction,
            threshold=threshold,
            per_group=None if per_group is None else _group(per_group),
            near_duplicates=near_duplicates,
            exclude_contaminated=None
            if exclude_contaminated is None
            else pipeline.evaluation_texts(exclude_contaminated),
            columns=mapping,
            every_turn=every_turn,
            config=config,
            split=split,
            revision=revision,
            streaming=streaming,
            limit=limit,
            seed=seed,
            license=license,
            language=language,
            overwrite=overwrite,
            command=_command(),
            progress=not json_,
        )
    except KeyboardInterrupt:
        typer.echo("\nim-datasets: interrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    _print_mined(mined, as_json=json_)


@app.command()
def rules(
    name: Annotated[str | None, typer.Argument(help="Show this rule whole.")] = None,
) -> None:
    """List the shipped rules, or show one."""
    from im_datasets.rule import LinearRule

    if name is not None:
        typer.echo(json.dumps(LinearRule.load(name).to_dict(), indent=2, ensure_ascii=False))
        return
    for each in LinearRule.names():
        typer.echo(f"{each:10} {LinearRule.load(each).title}")


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 1."""
    try:
        app()
    except ImDatasetsError as error:
        typer.echo(f"im-datasets: error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


def _print_mined(mined: "Mined", *, as_json: bool) -> None:
    from im_datasets.summary import print_summary, summarise

    summary = summarise(mined)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print_summary(summary)


def _group(text: str) -> tuple[str, int]:
    column, sign, quota = text.rpartition("=")
    if not (sign and column and quota.isdecimal()):
        raise SelectionError(f"--per-group takes COLUMN=QUOTA with a whole number, got {text!r}")
    return column, int(quota)


def _command() -> list[str]:
    """The command line, with absolute paths cut to their last part: it goes on cards."""
    return ["im-datasets", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])]
