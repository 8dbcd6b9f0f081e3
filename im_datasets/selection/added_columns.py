"""The columns that scoring and selection add, as they come back in files of a stranger's: each of the type it has."""

from collections.abc import Collection

import pyarrow as pa
from datasets import Dataset

from im_datasets.common.errors import UntrustedError, message_of
from im_datasets.common.untrusted import shown
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import DUPLICATE_OF, RANK, REASON, ROW, TARGET

IS_KEPT = "im_kept"
"""Column of the config ``scores`` of a publication: whether the row is among the kept ones."""

OF_KEPT, OF_DROPPED = (LOG_LOSS, ROW, RANK), (LOG_LOSS, ROW, RANK, REASON, DUPLICATE_OF)
"""What each side of a selection has."""


def check_added(rows: Dataset, record: ScoringRecord | None, what: str, needed: Collection[str] = ()) -> None:
    """Refuse rows whose added columns are not what scoring and selection write, or whose texts are no UTF-8.

    Args:
        rows: Read from files.
        record: Names the columns of its indicators and its rule; None where there is none.
        what: What the rows are, for the error.
        needed: Columns that must be there.

    Raises:
        UntrustedError: Names the column, and what it holds.
    """
    if missing := [name for name in needed if name not in rows.column_names]:
        raise UntrustedError(f"{what} lacks the column {missing[0]}, which every selection has")
    written = {name for indicator in record.indicators for name in indicator.writes} if record else set()
    scores = written | set(record.rule.columns if record else ())
    for name in rows.column_names:
        column = rows.data.column(name)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise UntrustedError(f"the column {shown(name)} of {what} cannot be read: {message_of(error)}") from error
        if not len(column) or not (accepted := _wrong(column, name, is_score=name in scores or name in COLUMNS)):
            continue
        stands = f"{column.type}{' and nulls' if column.null_count else ''}"
        raise UntrustedError(f"the column {shown(name)} of {what} holds {shown(stands)}, not {accepted}")


def _wrong(column: pa.ChunkedArray, name: str, *, is_score: bool) -> str:
    """What a column should hold and does not; an empty text where nothing is wrong."""
    kind, types = column.type, pa.types
    if name in (ROW, RANK, DUPLICATE_OF, TARGET):
        return "" if types.is_integer(kind) and not column.null_count else "whole numbers, one for each row"
    if name == IS_KEPT:
        return "" if types.is_boolean(kind) and not column.null_count else "true or false for each row"
    if name in (REASON, UNSCORABLE):
        is_text = types.is_string(kind) or types.is_large_string(kind)
        return "" if is_text and not column.null_count else "texts, one for each row"
    if not is_score or types.is_null(kind):
        return ""
    return "" if types.is_floating(kind) or types.is_integer(kind) else "numbers"
