"""The texts of published rows, read as they were read when they were scored; and what a reader would take for them."""

from collections.abc import Iterator

from datasets import Dataset

from im_datasets.common.errors import ColumnsError
from im_datasets.data.arrow import undecoded
from im_datasets.data.columns import TURN, Columns
from im_datasets.data.pairs import Pairs
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few
from im_datasets.scoring.record import ScoringRecord

BATCH = 1000
"""Rows whose texts are in memory at a time."""


def has_texts(record: ScoringRecord | None, rows: Dataset) -> bool:
    """Whether the columns that were scored are there."""
    return record is not None and set(record.columns.mapping.values()) <= set(rows.column_names)


def read_pairs(record: ScoringRecord, rows: Dataset) -> Iterator[Pairs]:
    """The pairs of all rows, some at a time; no other column is read."""
    columns = record.columns
    columns.require(rows.column_names)
    texts = undecoded(rows.select_columns(list(columns.mapping.values())))
    for start in range(0, len(texts), BATCH):
        yield columns.pairs(texts[start : start + BATCH])


def read_some(record: ScoringRecord, rows: Dataset) -> Pairs:
    """The pairs of a few rows."""
    pairs = Pairs([], [], [])
    for part in read_pairs(record, rows):
        pairs.contexts.extend(part.contexts)
        pairs.responses.extend(part.responses)
        pairs.reasons.extend(part.reasons)
    return pairs


def check_columns(published: PublishedSelection) -> Iterator[Check]:
    """Whether the columns that were scored are those that a reader takes by their names, and which no check reads."""
    record = published.record
    if record is None:
        return
    rows = next((side for side in published.sides.values() if has_texts(record, side)), None)
    if rows is None:
        return
    names = [name for name in rows.column_names if not name.startswith("im_")]
    scored = {field: name for field, name in record.columns.mapping.items() if name != TURN}
    try:
        taken = Columns.detect(names).mapping
    except ColumnsError:
        taken = {}
    if taken != scored:
        said = f"a reader takes {_told(taken)}" if taken else "their names do not tell which are the texts"
        yield Check("columns", Outcome.NOT_CHECKED, f"the scores are of {_told(scored)}; {said}")
    if beside := [name for name in names if name not in scored.values()]:
        yield Check("columns", Outcome.NOT_CHECKED, f"{few(beside)}: columns beside the texts, which no score is of")


def _told(mapping: dict[str, str]) -> str:
    return ", ".join(f"{field}={name}" for field, name in mapping.items())
