"""What a person reads at the end of a run: counts, reasons, the best and the worst rows, where it all lies."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from im_datasets.common.untrusted import HIDDEN, show_controls, shown
from im_datasets.data.arrow import read_column, undecoded
from im_datasets.data.columns import Columns
from im_datasets.pipeline import Mined
from im_datasets.report.formatting import shortfall
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.selection.select import RANK, ROW

if TYPE_CHECKING:
    from im_datasets.hub.push import Pushed
    from im_datasets.hub.verification.verify import Verification

SHOWN = 5
_WIDTH = 300


def summarise(mined: Mined) -> dict[str, Any]:
    """The summary as plain data.

    Returns:
        ``folder``, ``repeated``, ``rows``, ``kept``, ``dropped``, ``shortfall`` (rows fewer than asked for),
        ``reasons``, ``rule``, ``cut``, ``best`` and ``worst`` (each row's source index, rank, log loss and the
        beginnings of its texts), ``seconds``, ``peak_memory_bytes``.
    """
    record, selection = mined.record, mined.selection
    return {
        "folder": str(mined.folder),
        "repeated": mined.repeated,
        "rows": len(selection.kept) + len(selection.dropped),
        "kept": len(selection.kept),
        "dropped": len(selection.dropped),
        "shortfall": selection.settings.get("shortfall") or 0,
        "reasons": selection.reasons,
        "rule": {"name": record.rule.name, "title": record.rule.title},
        "cut": selection.cut,
        "columns": record.columns.to_dict(),
        "best": _rows([selection.kept, selection.dropped], record.columns, best=True),
        "worst": _rows([selection.kept, selection.dropped], record.columns, best=False),
        "seconds": record.seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
    }


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary for a person on standard output."""
    console = Console(file=sys.stdout, highlight=False)
    kept, rows = summary["kept"], summary["rows"]
    cut = "" if summary["cut"] is None else f", score up to {summary['cut']:.4f}"
    console.print(Text(f"\nKept {kept:,} of {rows:,} rows by the rule {shown(repr(summary['rule']['name']))}{cut}."))
    if summary["shortfall"]:
        console.print(Text(shortfall(summary["shortfall"])))
    for note in summary["columns"].get("notes", ()):
        console.print(Text(f"  note: {shown(note)}"))
    for reason, count in summary["reasons"].items():
        console.print(Text(f"  dropped {count:>9,}  {shown(reason)}"))
    for title in ("best", "worst"):
        console.print(_table(f"The {len(summary[title])} {title} rows", summary[title]))
    if summary["repeated"]:
        console.print("Nothing had changed since this was written, so nothing was computed again.")
    else:
        minutes, seconds = divmod(round(sum(summary["seconds"].values())), 60)
        peak = summary["peak_memory_bytes"] / 2**30
        console.print(f"Took {minutes} min {seconds} s, peak memory {peak:.1f} GiB.")
    console.print(Text(f"Written to {summary['folder']}: open report.html first."))


def print_pushed(pushed: "Pushed") -> None:
    """Print what became of a push."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if pushed.dropped_media:
        console.print(Text(f"Left out {pushed.dropped_media:,} images, sounds or the like: nobody handed them over."))
    for change in pushed.changes:
        if pushed.dry_run or change.action != "keep":
            console.print(Text(f"  {change.action:7} {change.size:>12,}  {shown(change.path)}"))
    if pushed.dry_run:
        console.print(Text(HIDDEN.sub("\ufffd", show_controls(pushed.card_diff)) or "README.md stays as it is"))
        branch = f", with a new branch {pushed.revision}" if pushed.new_branch else ""
        console.print(Text(f"Nothing was sent. This is what a push to {pushed.repo_id} would do{branch}."))
    elif pushed.changed:
        console.print(Text(f"{_what_was_done(pushed)} {pushed.url}"))
        at = "" if pushed.revision == "main" else f" --revision {pushed.revision}"
        console.print(Text(f"Check it: im-datasets verify {pushed.repo_id}{at}"))
    else:
        console.print(Text(f"Nothing had changed, so nothing was written: {pushed.url}"))


def _what_was_done(pushed: "Pushed") -> str:
    commit = (pushed.commit or "")[:8]
    if pushed.pull_request:
        return "Opened the pull request"
    if all(change.action == "keep" for change in pushed.changes):
        return f"Made the branch {pushed.revision} at {commit}, which holds this selection already, of"
    return f"Committed {commit} to"


_ORDER = ("failed", "passed", "not checked")


def print_verification(verification: "Verification") -> None:
    """Print every check, and what they come to."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    # What matters most first: sorting keeps the order of those of one outcome.
    for check in sorted(verification.checks, key=lambda check: _ORDER.index(check.outcome)):
        console.print(Text(f"{check.outcome:11}  {check.name:10}  {check.told}"))
    at = f" at {verification.commit[:8]}" if verification.commit else ""
    end = "holds what it claims" if verification.ok else "does NOT hold what it claims"
    if verification.ok and verification.unchecked:
        end += f", as far as it could be checked ({verification.unchecked} not checked)"
    console.print(Text(f"{shown(verification.name)}{at} {end}. Same sample again: --seed {verification.seed}"))


def _rows(sides: list[Dataset], columns: Columns, *, best: bool) -> list[dict[str, Any]]:
    """The first or the last rows in rank order over both sides, the worst one first at the bad end."""
    ends: list[tuple[int, int, int]] = []
    for number, side in enumerate(sides):
        # Of a side without rows there is no column to read.
        ranks: NDArray[np.int64] = read_column(side, RANK).to_numpy() if len(side) else np.empty(0, dtype=np.int64)
        scored = np.flatnonzero(ranks > 0)
        order = scored[np.argsort(ranks[scored] if best else -ranks[scored])[:SHOWN]]
        ends += [(int(ranks[row]), number, int(row)) for row in order]
    ends.sort(reverse=not best)
    needed = {*columns.mapping.values(), ROW, RANK, LOG_LOSS}
    read = [undecoded(side.select_columns([n for n in side.column_names if n in needed])) for side in sides]
    return [_row(read[number][row], columns) for _, number, row in ends[:SHOWN]]


def _row(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    pairs = columns.pairs({name: [value] for name, value in row.items()})
    return {
        "row": row[ROW],
        "rank": row[RANK],
        # None where there is no number, which JSON has no word for.
        "im_log_loss": row[LOG_LOSS] if math.isfinite(row[LOG_LOSS] or 0) else None,
        "instruction": pairs.instructions[0][:_WIDTH],
        "response": pairs.responses[0][:_WIDTH],
    }


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", expand=True, show_lines=False)
    columns: tuple[tuple[str, dict[str, Any]], ...] = (
        ("row", {"justify": "right"}),
        ("score", {"justify": "right"}),
        ("instruction", {"ratio": 2, "no_wrap": True}),
        ("response", {"ratio": 3, "no_wrap": True}),
    )
    for name, options in columns:
        table.add_column(name, overflow="ellipsis", **options)
    for row in rows:
        texts = [Text(shown(row[name], _WIDTH)) for name in ("instruction", "response")]
        table.add_row(str(row["row"]), "–" if row["im_log_loss"] is None else f"{row['im_log_loss']:.4f}", *texts)
    return table
