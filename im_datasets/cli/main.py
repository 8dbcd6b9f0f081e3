"""The command line: reads arguments, calls the package, prints a summary; no logic of its own.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, ArgumentCollection, CoercionError, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError
from cyclopts.validators import Number

from im_datasets.cli import options
from im_datasets.cli.calibrate import calibrate, compare, search_size
from im_datasets.cli.options import DataOptions, ModelOptions, RunOptions, SelectionOptions, command_line
from im_datasets.common.errors import ImDatasetsError
from im_datasets.common.version import __version__
from im_datasets.scoring.request import RunRequest
from im_datasets.selection.request import SelectionRequest

if TYPE_CHECKING:
    from im_datasets.pipeline import Mined

_GOES_ON = "nothing was written. The same command goes on where it was"
_KEEPS_RUNS = "finished runs are kept, and the same command goes on"
_INTERRUPTED = {
    "mine": _GOES_ON,
    "score": _GOES_ON,
    "push": "a commit is made whole or not at all. Push again to be sure",
    **dict.fromkeys(("calibrate", "search-size", "compare"), _KEEPS_RUNS),
}
"""Command → what its interruption left."""


_Sample = int | Literal["all"]
_WHOLE = (int, int | None, list[int] | None, _Sample)
"""What is asked for where only whole numbers, and words of ours, will do."""


def _not_negative(_type: Any, value: int | str) -> None:
    if isinstance(value, int):
        Number(gte=0)(_type, value)


def _refuse_fractions(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse what is no whole number where one is asked for; cyclopts would round 2.5 to 2, and take none for None."""
    for argument in arguments:
        for token in argument.tokens if argument.hint in _WHOLE else ():
            is_word = argument.hint is _Sample and token.value == "all"
            if not is_word and not re.fullmatch(r"[+-]?[\d_]+(\.0*)?", token.value):
                line = f'"{token.value}" is neither a whole number nor all.' if argument.hint is _Sample else None
                raise CoercionError(line, token=token, argument=argument, target_type=int)


# Scripts may give an option twice, to override it; a flag that is off anyhow needs no --no-x to switch it off. Errors
# and interruptions are told by ``main`` and ``run``, in one line.
app = App(
    name="im-datasets",
    help="Find the rows of an instruction dataset that are worth training on.",
    version=f"im-datasets {__version__}",
    version_flags="--version",
    help_flags="--help",
    help_format="markdown",
    default_parameter=Parameter(
        negative="", allow_repeating=True, show_default=lambda value: None if value in (None, False) else str(value)
    ),
    config=_refuse_fractions,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
metrics_app = App(name="metrics", help="The indicators as modules of evaluate.", sort_key=9)


@app.command(sort_key=0)
def mine(
    data: options.Data,
    /,
    *,
    out: options.Out,
    source: DataOptions = DataOptions(),
    selection: SelectionOptions | None = None,
    models: ModelOptions = ModelOptions(),
    run: RunOptions = RunOptions(),
    license: options.License = None,
    language: options.Language = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Score a dataset, keep the best rows, and write data, card, record and report."""
    from im_datasets.pipeline import mine_files

    how = run.request(overwrite=overwrite, progress=not json)
    wish = selection or SelectionRequest()
    mined = mine_files(models.request(data, source), out, wish, license=license, language=language, run=how)
    _print_mined(mined, as_json=json)


@app.command(sort_key=1)
def score(
    data: options.Data,
    /,
    *,
    out: Annotated[Path, Parameter(group=options.OUTPUT, help="Folder of shards, or one file that ends in .parquet.")],
    source: DataOptions = DataOptions(),
    models: ModelOptions = ModelOptions(),
    run: RunOptions = RunOptions(),
    overwrite: options.Overwrite = False,
) -> None:
    """Score a dataset and write all its rows with their scores as Parquet; select chooses from them."""
    from im_datasets.pipeline import score_files

    scored = score_files(models.request(data, source), out, run.request(overwrite=overwrite))
    unscorable = sum(scored.record.unscorable.values())
    pace = "was scored already" if scored.repeated else f"{scored.record.throughput['rows_per_second']:,.0f} rows/s"
    print(f"{scored.path}: {scored.record.rows:,} rows, {unscorable:,} could not be scored; {pace}")


@app.command(sort_key=2)
def select(
    scored: Annotated[Path, Parameter(help="The file or folder that score wrote.")],
    /,
    *,
    out: options.Out,
    selection: SelectionOptions | None = None,
    license: options.License = None,
    language: options.Language = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Keep the best of rows that score has scored, and write data, card, record and report."""
    from im_datasets.pipeline import select_files

    run = RunRequest(overwrite, command_line(), progress=not json)
    wish = selection or SelectionRequest()
    _print_mined(select_files(scored, out, wish, license=license, language=language, run=run), as_json=json)


@app.command(sort_key=3)
def push(
    folder: Path,
    repo: str,
    /,
    *,
    license: str | None = None,
    language: list[str] | None = None,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    columns: Annotated[str, Parameter(metavar="all|original")] = "all",
    include_dropped: bool = False,
    include_scores: bool = False,
    scores_only: bool = False,
    with_report: bool = False,
    media_from: str | None = None,
    drop_media: bool = False,
    collection: Annotated[str | None, Parameter(metavar="SLUG")] = None,
    tag: list[str] | None = None,
    task_category: list[str] | None = None,
    pretty_name: options.Text = None,
    message: options.Text = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Publish what mine wrote: rows, card, figures and record in one commit.

    Args:
        folder: The folder that mine wrote.
        repo: Dataset repository: owner/name, or a name of your own.
        license: Licence of the rows; else that of the cards there and of the source.
        language: Language code of the rows; repeatable.
        private: Make a new repository private.
        create_pr: Open a pull request instead of writing to the branch.
        revision: Branch to write to, made where missing, or refs/pr/N.
        columns: With the columns of im-datasets, or the source's own alone.
        include_dropped: Publish the dropped rows as config 'dropped'.
        include_scores: Publish the scores of all rows as config 'scores'.
        scores_only: Publish no texts, only row numbers and scores.
        with_report: Publish report.html, which shows rows of both sides.
        media_from: Publish files of this folder, or of owner/name@commit, where rows name them without their bytes.
        drop_media: Leave out images, sounds and the like whose bytes are neither in the rows nor in --media-from.
        collection: Add the dataset to this collection.
        tag: Tag of the card; repeatable.
        task_category: Task as the Hub names it, such as text-generation; repeatable.
        pretty_name: Title of the dataset.
        message: Title of the commit or pull request.
        overwrite: Replace files and parts of the card that somebody else changed.
        dry_run: Send nothing; show the files and the card's diff.
    """
    from im_datasets.cli.printing import print_pushed
    from im_datasets.hub.push import push_selected
    from im_datasets.report.result_folder import CARD, load_result

    card = folder / CARD
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
        media_from=media_from,
        drop_media=drop_media,
        collection=collection,
        tags=tag or (),
        task_categories=task_category or (),
        pretty_name=pretty_name,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
        message=message,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    print_pushed(pushed)


@app.command(sort_key=4)
def verify(
    target: str,
    /,
    *,
    revision: str | None = None,
    sample: Annotated[_Sample, Parameter(validator=_not_negative, metavar="N|all")] = 32,
    seed: int | None = None,
    source: Annotated[str | None, Parameter(metavar="DATA")] = None,
    evaluation: options.Evaluation = None,
    json: bool = False,
) -> int:
    """Check a published selection; exit status 1 when anything is not as it claims.

    Args:
        target: A published selection (owner/name), or a folder of one.
        revision: Branch, tag, commit or refs/pr/N.
        sample: Score this many kept rows again, and as many dropped ones; all scores every row.
        seed: Draw the same rows again.
        source: Compare the rows with this source, a path or a Hub id; without it no source is read.
        evaluation: Look for rows that repeat an instruction of this evaluation set.
        json: Print the checks as JSON.
    """
    from dataclasses import asdict

    from im_datasets.cli.printing import print_verification
    from im_datasets.hub.verification.verify import verify as check

    verification = check(target, revision=revision, sample=sample, seed=seed, source=source, evaluation=evaluation)
    if json:
        _print_json({**asdict(verification), "ok": verification.ok})
    else:
        print_verification(verification)
    return 0 if verification.ok else 1


@app.command(sort_key=5)
def rules(name: Annotated[str | None, Parameter(help="Show this rule whole.")] = None, /) -> None:
    """List the shipped rules, or show one."""
    from im_datasets.rules.linear import LinearRule

    if name is not None:
        _print_json(LinearRule.load(name).to_dict())
        return
    for each in LinearRule.names():
        print(f"{each:10} {LinearRule.load(each).title}")


@metrics_app.command(name="push")
def push_metrics(
    *,
    namespace: str,
    only: list[str] | None = None,
    private: bool = False,
    package: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Publish the evaluate modules, each as a Space of the Hub; a second time changes nothing.

    Args:
        namespace: The user or organisation to publish under.
        only: A module to publish instead of all; repeatable.
        private: Make new Spaces private.
        package: What pip installs in the Spaces as im-datasets, such as git+https://…
        overwrite: Replace files of a Space that somebody else wrote or changed.
        dry_run: Say what would be published; publish nothing.
    """
    from im_datasets.hub.spaces import push_modules

    if package is None:
        reason = f"will install im-datasets=={__version__} from PyPI; where it is not there, they cannot start"
        _tell("warning", f"the Spaces {reason}: pass --package git+https://… then", 500)
    for space in push_modules(
        namespace, only=only or (), private=private, package=package, overwrite=overwrite, dry_run=dry_run
    ):
        print(f"{space.status:10} {space.url or space.repo_id}")


app.command(calibrate, sort_key=6)
app.command(search_size, sort_key=7)
app.command(compare, sort_key=8)
app.command(metrics_app)
app.register_install_completion_command()


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 1, one in the call exit status 2."""
    try:
        # For this program alone: a library of the caller's shows its warnings as it likes.
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _tell("warning", message, 500)
            status = run(sys.argv[1:])
    except ImDatasetsError as error:
        _tell("error", error, 2000)
        status = 1
    except CycloptsError as error:
        _tell("error", _wrong_call(error), 2000)
        status = 2
    except BrokenPipeError:
        # Who read the output, such as head, has enough; the interpreter flushes the rest of it to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _wrong_call(error: CycloptsError) -> str:
    """What is wrong with a call; cyclopts words what was left out as if it stood there without a value."""
    if isinstance(error, MissingArgumentError) and error.keyword is None and error.argument is not None:
        return f"missing {error.argument.name}; im-datasets {' '.join(error.command_chain or ())} --help lists all"
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected {' '.join(error.unused_tokens or ())}; im-datasets --help lists the commands"
    return str(error)


def run(words: list[str]) -> int:
    """Run a command; returns the exit status that shells give such an end.

    Raises:
        CycloptsError: The call is wrong.
        ImDatasetsError: As the command.
    """
    # Nothing was asked for, which is a wrong call; cyclopts would show the help and end with 0.
    if words in ([], ["metrics"]):
        app.help_print(words)
        return 2
    try:
        status = app(words)
    except KeyboardInterrupt:
        if words[0] in _INTERRUPTED:
            print(f"\nim-datasets: interrupted; {_INTERRUPTED[words[0]]}", file=sys.stderr)
        # What shells report of a program that SIGINT ended: 128 and the signal's number.
        return 130
    return status if isinstance(status, int) else 0


def _tell(kind: str, message: object, limit: int) -> None:
    """Write one line that no control character of a file name or a row can change."""
    from im_datasets.common.untrusted import shown

    print(f"im-datasets: {kind}: {shown(message, limit)}", file=sys.stderr)


def _print_mined(mined: "Mined", *, as_json: bool) -> None:
    from im_datasets.cli.printing import print_summary, summarise

    summary = summarise(mined)
    if as_json:
        _print_json(summary)
    else:
        print_summary(summary)


def _print_json(data: dict[str, Any]) -> None:
    from im_datasets.common.untrusted import escape_unseen

    print(escape_unseen(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)))


if __name__ == "__main__":
    main()
