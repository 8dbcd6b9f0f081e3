"""What a person reads at the end of a run: counts, reasons, the best and the worst rows, where it all lies."""

import sys
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text

from im_datasets.columns import Columns
from im_datasets.pipeline import Mined

SHOWN = 5
_WIDTH = 300


def summarise(mined: Mined) -> dict[str, Any]:
    """The summary as plain data.

    Returns:
        ``folder``, ``repeated``, ``rows``, ``kept``, ``dropped``, ``reasons``, ``rule``, ``cut``, ``best`` and
        ``worst`` (each row's source index, rank, log loss and the beginnings of its texts), ``seconds``,
        ``peak_memory_bytes``.
    """
    record, selection = mined.record, mined.selection
    columns = Columns(**record.columns["fields"])
    return {
        "folder": str(mined.folder),
        "repeated": mined.repeated,
        "rows": len(selection.kept) + len(selection.dropped),
        "kept": len(selection.kept),
        "dropped": len(selection.dropped),
        "reasons": selection.reasons,
        "rule": {"name": record.rule["name"], "title": record.rule["title"]},
        "cut": selection.cut,
        "columns": record.columns,
        "best": _rows([selection.kept, selection.dropped], columns, best=True),
        "worst": _rows([selection.kept, selection.dropped], columns, best=False),
        "seconds": record.seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
    }


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary for a person on standard output."""
    console = Console(file=sys.stdout, highlight=False)
    kept, rows = summary["kept"], summary["rows"]
    cut = "" if summary["cut"] is None else f", score up to {summary['cut']:.4f}"
    console.print(Text(f"\nKept {kept:,} of {rows:,} rows by the rule {summary['rule']['name']!r}{cut}."))
    for note in summary["columns"].get("notes", ()):
        console.print(Text(f"  note: {note}"))
    for reason, count in summary["reasons"].items():
        console.print(Text(f"  dropped {count:>9,}  {reason}"))
    for title in ("best", "worst"):
        console.print(_table(f"The {len(summary[title])} {title} rows", summary[title]))
    if summary["repeated"]:
        console.print("Nothing had changed since this was written, so nothing was computed again.")
    else:
        minutes, seconds = divmod(sum(summary["seconds"].values()), 60)
        peak = summary["peak_memory_bytes"] / 2**30
        console.print(f"Took {int(minutes)} min {seconds:.0f} s, peak memory {peak:.1f} GiB.")
    console.print(Text(f"Written to {summary['folder']}: open report.html first."))


def _rows(sides: list[Dataset], columns: Columns, *, best: bool) -> list[dict[str, Any]]:
    """The first or the last rows in rank order over both sides, the worst one first at the bad end."""
    ranks = [(rank, side, row) for side in (0, 1) for row, rank in enumerate(_ranks(sides[side])) if rank > 0]
    ranks.sort(reverse=not best)
    return [_row(sides[side][row], columns) for _, side, row in ranks[:SHOWN]]


def _ranks(side: Dataset) -> list[int]:
    ranks: list[int] = np.asarray(side.with_format("numpy")["im_rank"][:], dtype=np.int64).tolist() if len(side) else []
    return ranks


def _row(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    pairs = columns.pairs({name: [value] for name, value in row.items()})
    return {
        "row": row["im_row"],
        "rank": row["im_rank"],
        "im_log_loss": row["im_log_loss"],
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
        texts = [Text(" ".join(row[name].split())) for name in ("instruction", "response")]
        table.add_row(str(row["row"]), f"{row['im_log_loss']:.4f}", *texts)
    return table
