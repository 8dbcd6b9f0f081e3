"""The command line: reads arguments, calls the package, prints a summary; no logic of its own.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from im_datasets.cli.calibrate import calibrate, compare, search_size
from im_datasets.common.errors import ImDatasetsError, SelectionError

if TYPE_CHECKING:
    from im_datasets.indicators import Indicator
    from im_datasets.pipeline import Mined

app = typer.Typer(
    help="Find the rows of an instruction dataset that are worth training on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
metrics_app = typer.Typer(help="The indicators as modules of evaluate.", no_args_is_help=True)
app.add_typer(metrics_app, name="metrics")
app.command()(calibrate)
app.command()(search_size)
app.command()(compare)


Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that score side by side; on GPUs, as many as there are GPUs. Default: 1, on Ray what it has.",
    ),
]
EngineName = Annotated[
    str, typer.Option("--engine", metavar="local|ray", help="Score on this machine, or on a Ray cluster.")
]
Address = Annotated[
    str | None, typer.Option(help="Of the Ray cluster (auto: the one of this node); else one is started here.")
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with unfinished work of the same request, or throw it away.")
]
EmbedderModel = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        metavar="MODEL",
        help="Sentence encoder: embedded (the default), static (very fast, less exact), a Hub id or a folder.",
    ),
]
LogJson = Annotated[
    str | None, typer.Option(metavar="FILE|-", help="Add a JSON line per event to this file, or to standard error.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from im_datasets.common.version import __version__

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
            metavar="DATA",
            help="A JSON, JSONL, CSV or Parquet file, a glob or folder of them, "
            "a folder saved by datasets, or the id of a Hub dataset.",
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
    reward_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Reward model: a Hub id or a folder, instead of the rule's.")
    ] = None,
    unieval_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="UniEval model: a Hub id or a folder, instead of the rule's.")
    ] = None,
    perplexity_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Score im_perplexity too, with this causal model.")
    ] = None,
    ifd_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Score im_ifd too, with this causal model.")
    ] = None,
    embedder: EmbedderModel = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps, for these models.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16, for these models but UniEval.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep model outputs between runs, and take them from there.")
    ] = True,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    resume: Resume = True,
    log_json: LogJson = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result in the folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and show no progress.")] = False,
) -> None:
    """Score a dataset, keep the best rows, and write data, card, record and report."""
    from im_datasets import pipeline
    from im_datasets.data.columns import Columns
    from im_datasets.scoring.engines.choose import choose_engine

    mapping = None if columns is None else Columns.parse(columns)
    models = {"Reward": reward_model, "UniEval": unieval_model, "Perplexity": perplexity_model, "IFD": ifd_model}
    with _told_when_interrupted():
        mined = pipeline.mine(
            data,
            out,
            rule=rule,
            indicators=_indicators(rule, models, device, dtype, embedder),
            top_k=top_k,
            fraction=fraction,
            threshold=threshold,
            per_group=None if per_group is None else _group(per_group),
            near_duplicates=near_duplicates,
            exclude_contaminated=_evaluation_texts(exclude_contaminated),
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
            cache=cache,
            engine=choose_engine(engine, workers, address),
            resume=resume,
            log=log_json,
        )
    _print_mined(mined, as_json=json_)


@app.command()
def score(
    data: Annotated[str, typer.Argument(help="What is to be scored, as mine takes it.")],
    out: Annotated[Path, typer.Option(help="Folder of Parquet shards to write, or one file that ends in .parquet.")],
    rule: Annotated[str, typer.Option(help="A shipped rule's name or the path of a rule's JSON.")] = "embedded",
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
    reward_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Reward model, as mine takes it.")] = None,
    unieval_model: Annotated[str | None, typer.Option(metavar="MODEL", help="UniEval model, as mine takes it.")] = None,
    perplexity_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score im_perplexity too.")] = None,
    ifd_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score im_ifd too.")] = None,
    embedder: EmbedderModel = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps, for these models.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, for these models.")] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep model outputs between runs, and take them from there.")
    ] = True,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    resume: Resume = True,
    log_json: LogJson = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result.")] = False,
) -> None:
    """Score a dataset and write all its rows with their scores; select chooses from them."""
    from im_datasets.data.columns import Columns
    from im_datasets.data.request import SourceRequest
    from im_datasets.pipeline import score_files
    from im_datasets.scoring.engines.choose import choose_engine
    from im_datasets.scoring.request import RunRequest, ScoringRequest

    models = {"Reward": reward_model, "UniEval": unieval_model, "Perplexity": perplexity_model, "IFD": ifd_model}
    with _told_when_interrupted():
        scored = score_files(
            ScoringRequest(
                SourceRequest(data, config, split, revision, streaming, limit),
                rule,
                _indicators(rule, models, device, dtype, embedder),
                None if columns is None else Columns.parse(columns),
                every_turn,
            ),
            out,
            RunRequest(
                overwrite=overwrite,
                command=_command(),
                cache=cache,
                engine=choose_engine(engine, workers, address),
                resume=resume,
                log=log_json,
            ),
        )
    unscorable = sum(scored.record.unscorable.values())
    told = "was scored already" if scored.repeated else f"{scored.record.throughput['rows_per_second']:,.0f} rows/s"
    typer.echo(f"{scored.path}: {scored.record.rows:,} rows, {unscorable:,} could not be scored; {told}")


@app.command()
def select(
    scored: Annotated[Path, typer.Argument(metavar="SCORED", help="The file or folder that score wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write, the same as mine's.")],
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
    seed: Annotated[int, typer.Option(help="Recorded with the selection.")] = 0,
    license: Annotated[str | None, typer.Option(help="Licence of the rows, for the card.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language code of the rows, for the card; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result in the folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and show no progress.")] = False,
) -> None:
    """Keep the best of rows that score has scored, and write data, card, record and report."""
    from im_datasets.pipeline import select_files
    from im_datasets.scoring.request import RunRequest
    from im_datasets.selection.request import SelectionRequest

    mined = select_files(
        scored,
        out,
        SelectionRequest(
            top_k,
            fraction,
            threshold,
            None if per_group is None else _group(per_group),
            near_duplicates,
            _evaluation_texts(exclude_contaminated),
            seed,
        ),
        license=license,
        language=language,
        run=RunRequest(overwrite, _command(), not json_),
    )
    _print_mined(mined, as_json=json_)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that mine wrote.")],
    repo: Annotated[str, typer.Argument(help="Dataset repository: owner/name, or a name of your own.")],
    license: Annotated[
        str | None, typer.Option(help="Licence of the rows; else that of the cards there and of the source.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="Language code of the rows; repeatable.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of writing to the branch.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to write to, made where missing, or refs/pr/N.")] = None,
    columns: Annotated[
        str, typer.Option(metavar="all|original", help="With the columns of im-datasets, or the source's own alone.")
    ] = "all",
    include_dropped: Annotated[
        bool, typer.Option("--include-dropped", help="Publish the dropped rows as config 'dropped'.")
    ] = False,
    include_scores: Annotated[
        bool, typer.Option("--include-scores", help="Publish the scores of all rows as config 'scores'.")
    ] = False,
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Publish no texts, only row numbers and scores.")
    ] = False,
    with_report: Annotated[
        bool, typer.Option("--with-report", help="Publish report.html, which shows rows of both sides.")
    ] = False,
    collection: Annotated[str | None, typer.Option(metavar="SLUG", help="Add the dataset to this collection.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag of the card; repeatable.")] = None,
    task_category: Annotated[
        list[str] | None, typer.Option(help="Task as the Hub names it, such as text-generation; repeatable.")
    ] = None,
    pretty_name: Annotated[str | None, typer.Option(help="Title of the dataset.")] = None,
    message: Annotated[str | None, typer.Option(help="Title of the commit or pull request.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files and parts of the card that somebody else changed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; show the files and the card's diff.")
    ] = False,
) -> None:
    """Publish what mine wrote: rows, card, figures and record in one commit."""
    from im_datasets.cli.printing import print_pushed
    from im_datasets.hub.push import push_selected
    from im_datasets.report.result_folder import CARD, load_result

    _tell_warnings()
    card = folder / CARD
    try:
        pushed = push_selected(
            load_result(folder),
            repo,
            license=license,
            language=language,
            private=private or None,
            create_pr=create_pr,
            revision=revision,
            columns=columns,
            include_dropped=include_dropped,
            include_scores=include_scores,
            scores_only=scores_only,
            report=with_report,
            collection=collection,
            tags=tag or (),
            task_categories=task_category or (),
            pretty_name=pretty_name,
            card=card.read_text(encoding="utf-8") if card.is_file() else None,
            message=message,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    except KeyboardInterrupt:
        typer.echo("\nim-datasets: interrupted; a commit is made whole or not at all. Push again to be sure", err=True)
        raise typer.Exit(130) from None
    print_pushed(pushed)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="REPO|DIR", help="A published selection, or a folder of one.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag, commit or refs/pr/N.")] = None,
    sample: Annotated[int, typer.Option(help="Score this many rows again.", min=0)] = 32,
    seed: Annotated[int | None, typer.Option(help="Draw the same rows again.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check a published selection; exit status 1 when anything is not as it claims."""
    from dataclasses import asdict

    from im_datasets.cli.printing import print_verification
    from im_datasets.hub.verify import verify as check

    verification = check(target, revision=revision, sample=sample, seed=seed)
    if json_:
        typer.echo(json.dumps({**asdict(verification), "ok": verification.ok}, ensure_ascii=False, indent=2))
    else:
        print_verification(verification)
    if not verification.ok:
        raise typer.Exit(1)


@app.command()
def rules(
    name: Annotated[str | None, typer.Argument(help="Show this rule whole.")] = None,
) -> None:
    """List the shipped rules, or show one."""
    from im_datasets.rules.linear import LinearRule

    if name is not None:
        typer.echo(json.dumps(LinearRule.load(name).to_dict(), indent=2, ensure_ascii=False))
        return
    for each in LinearRule.names():
        typer.echo(f"{each:10} {LinearRule.load(each).title}")


@metrics_app.command("push")
def push_metrics(
    namespace: Annotated[str, typer.Option(help="The user or organisation to publish under.")],
    only: Annotated[list[str] | None, typer.Option(help="A module to publish instead of all; repeatable.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make new Spaces private.")] = False,
    package: Annotated[
        str | None, typer.Option(help="What pip installs in the Spaces as im-datasets, such as git+https://…")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of a Space that somebody else wrote or changed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be published; publish nothing.")] = False,
) -> None:
    """Publish the evaluate modules, each as a Space of the Hub; a second time changes nothing."""
    from im_datasets.common.version import __version__
    from im_datasets.hub.spaces import push_modules

    if package is None:
        told = f"the Spaces will install im-datasets=={__version__} from PyPI; where it is not there, they cannot start"
        typer.echo(f"im-datasets: warning: {told}: pass --package git+https://… then", err=True)
    for space in push_modules(
        namespace, only=only or (), private=private, package=package, overwrite=overwrite, dry_run=dry_run
    ):
        typer.echo(f"{space.status:10} {space.url or space.repo_id}")


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 1, one in the call exit status 2."""
    try:
        status = app(prog_name="im-datasets", standalone_mode=False)
    except ImDatasetsError as error:
        _fail(str(error), 1)
    except typer.TyperException as error:
        # Where nothing was asked for, the help text is printed already and there is no message.
        if not (text := error.format_message().strip()):
            sys.exit(error.exit_code)
        _fail(text, error.exit_code)
    except typer.Abort:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    """End with one line that no control character of a file name or a row can change."""
    from im_datasets.report.formatting import one_line

    typer.echo(f"im-datasets: error: {one_line(message, limit=2000)}", err=True)
    sys.exit(status)


@contextmanager
def _told_when_interrupted() -> Iterator[None]:
    """Say what an interruption left, and end with the status that shells give it."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nim-datasets: interrupted; nothing was written. The same command goes on where it was", err=True)
        raise typer.Exit(130) from None


def _print_mined(mined: "Mined", *, as_json: bool) -> None:
    from im_datasets.cli.printing import print_summary, summarise

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


def _indicators(
    rule: str, models: dict[str, str | None], device: str | None, dtype: str | None, embedder: str | None = None
) -> "list[Indicator]":
    """The indicators whose models were named, and the rule's own where a device or dtype was."""
    from im_datasets import indicators
    from im_datasets.rules.instruct_mining import settings_of
    from im_datasets.rules.linear import LinearRule

    known = LinearRule.load(rule)
    run = {name: value for name, value in (("device", device), ("dtype", dtype)) if value}
    if run:
        _check_run(device, dtype)
    wanted = [name for name, model in models.items() if model or (run and name in known.indicators)]
    if run and not wanted:
        return _on_device(rule, device, dtype, embedder)
    given = {name: {"model": models[name]} if models[name] else {} for name in wanted}
    # UniEval stays in float32: v3 subtracts two of its nearly equal scores.
    how = {name: {key: value for key, value in run.items() if (name, key) != ("UniEval", "dtype")} for name in wanted}
    made = [getattr(indicators, name)(**settings_of(known, name, **given[name], **how[name])) for name in wanted]
    return made + _embedding(rule, embedder) if embedder else made


def _check_run(device: str | None, dtype: str | None) -> None:
    from im_datasets.models.devices import choose_device, choose_dtype

    choose_dtype(dtype, choose_device(device))


def _on_device(rule: str, device: str | None, dtype: str | None, embedder: str | None) -> "list[Indicator]":
    """The indicators that embed, on that device; there are no others that take one."""
    from im_datasets.common.errors import IndicatorError
    from im_datasets.models.hub_models import EMBEDDED
    from im_datasets.rules.linear import LinearRule

    if dtype or "im_quality" not in LinearRule.load(rule).columns:
        option = f"--dtype {dtype}" if dtype else f"--device {device}"
        raise IndicatorError(f"no indicator of this run takes {option}; leave it out, or name a model to run with it")
    return _embedding(rule, embedder or EMBEDDED, device)


def _embedding(rule: str, model: str, device: str | None = None) -> "list[Indicator]":
    """The rule's indicators that embed, with that encoder; where it has none, one that only describes.

    What describes the rows takes the encoder of these, and so does the check for near-duplicates.
    """
    from dataclasses import replace

    from im_datasets.indicators import Similarity
    from im_datasets.indicators.settings import embedder_of
    from im_datasets.models.embedder import Embedder
    from im_datasets.rules.instruct_mining import InstructMining

    encoder = Embedder(model=model, device=device)
    embedding = [i for i in InstructMining(rule).indicators if embedder_of(i)]
    return [replace(i, embedder=encoder) for i in embedding] or [Similarity(embedder=encoder)]  # type: ignore[call-arg]


def _evaluation_texts(data: str | None) -> list[str] | None:
    """The instructions of an evaluation set; None where none is named."""
    from im_datasets.selection.contamination import evaluation_texts

    _tell_warnings()
    return None if data is None else evaluation_texts(data)


def _tell_warnings() -> None:
    """Show warnings as one line each, without the place in the code."""
    import warnings

    from im_datasets.report.formatting import one_line

    warnings.showwarning = lambda told, *_, **__: typer.echo(f"im-datasets: warning: {one_line(told, 500)}", err=True)


def _command() -> list[str]:
    """The command line, with absolute paths cut to their last part: it goes on cards."""
    return ["im-datasets", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])]


if __name__ == "__main__":
    main()
