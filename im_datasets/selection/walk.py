"""Walk rows from the best on and keep those that pass: quota, contamination, near-duplicates, in this order.

Reads texts a block at a time and embeds only as many rows as the walk comes to. What is best, and how many
rows are kept, ``select`` says.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from im_datasets.common.errors import SelectionError
from im_datasets.data.arrow import RowNumbers, read_column
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.data.prepare import read_texts
from im_datasets.selection.contamination import EvaluationIndex
from im_datasets.selection.duplicates import Block, KeptVectors, TextEmbedder

OVER_THE_QUOTA = "over the quota"
NOT_CHECKED = "could not be checked"
CONTAMINATED = "contaminated"
REPEATS_TARGET = "repeats a target"
NEAR_DUPLICATE = "near-duplicate"

BLOCK = 1024
"""Rows of which the texts are held at a time."""


class Quota:
    """How many rows each group may still have.

    Args:
        ds: The scored dataset.
        per_group: A column and the rows to keep per value of it, missing values being one group; None is one
            group without a limit.

    Raises:
        SelectionError: The column is unknown or holds no plain values.
    """

    def __init__(self, ds: Dataset, per_group: tuple[str, int] | None) -> None:
        self.quota = len(ds)
        self._groups: RowNumbers | None = None
        self._taken: Counter[int] = Counter()
        if per_group is not None:
            column, self.quota = per_group
            if column not in ds.features:
                raise SelectionError(f"no column {column!r} to group by in {list(ds.features)}")
            if not isinstance(ds.features[column], Value | ClassLabel):
                kind = ds.features[column]
                raise SelectionError(
                    f"column {column!r} holds {kind}; group by a column of plain values (text, numbers)"
                )
            self._groups = group_codes(read_column(ds, column))

    def is_full(self, row: int) -> bool:
        """Whether the group of this row has all the rows it may have."""
        return self._taken[self._group(row)] >= self.quota

    def take(self, row: int) -> None:
        """Count this row as kept."""
        self._taken[self._group(row)] += 1

    def _group(self, row: int) -> int:
        return 0 if self._groups is None else int(self._groups[row])


def group_codes(column: pa.ChunkedArray) -> RowNumbers:
    """A number per distinct value, one for all missing values."""
    if pa.types.is_floating(column.type):
        # To Arrow NaN is a value, here a missing one.
        column = pc.if_else(pc.is_nan(column), None, column)
    codes = column.combine_chunks().dictionary_encode().indices.fill_null(-1)
    groups: RowNumbers = codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return groups


class Texts:
    """Instructions and responses, a few rows at a time.

    Args:
        ds: The scored dataset.
        columns: Where instruction and response stand.

    Raises:
        ColumnsError: One of these columns is missing, or holds no text.
    """

    def __init__(self, ds: Dataset, columns: Columns) -> None:
        self._columns = columns
        self._ds = read_texts(ds, columns)

    def read(self, rows: RowNumbers) -> Pairs:
        """The pairs of these rows."""
        return self._columns.pairs(self._ds.select(rows)[:])


@dataclass(frozen=True)
class Checks:
    """All that can keep a row out although its log loss is low enough.

    Attributes:
        quota: Asked of every row.
        texts: None when neither of the checks below is.
        evaluation: Texts that no instruction may repeat; None means no check.
        targets: The instructions of target examples, which no instruction may repeat either; None means no check.
        vectors: The near-duplicate check; None means no check.
        embedder: Turns texts into vectors for it.
    """

    quota: Quota
    texts: Texts | None
    evaluation: EvaluationIndex | None
    targets: EvaluationIndex | None
    vectors: KeptVectors | None
    embedder: TextEmbedder | None

    def open(self, rows: RowNumbers) -> "_OpenBlock":
        """Read a block of rows; a row whose group is full already costs nothing."""
        rows = np.array([row for row in rows.tolist() if not self.quota.is_full(row)], dtype=np.int64)
        if self.texts is None or len(rows) == 0:
            return _OpenBlock(self.quota, {}, None)
        pairs = self.texts.read(rows)
        reasons = {row: self._reason(pairs, place) for place, row in enumerate(rows.tolist())}
        return _OpenBlock(self.quota, reasons, self._compare(rows, pairs, list(reasons.values())))

    def _reason(self, pairs: Pairs, place: int) -> str:
        """What is wrong with a pair's text on its own; empty if nothing is."""
        if pairs.reasons[place]:
            return f"{NOT_CHECKED}: {pairs.reasons[place]}"
        for index, reason in ((self.evaluation, CONTAMINATED), (self.targets, REPEATS_TARGET)):
            if index is not None and index.is_repeated_by(pairs.instructions[place]):
                return reason
        return ""

    def _compare(self, rows: RowNumbers, pairs: Pairs, reasons: list[str]) -> Block | None:
        places = [place for place, reason in enumerate(reasons) if not reason]
        if self.vectors is None or self.embedder is None or not places:
            return None
        texts = [f"{pairs.instructions[place]}\n\n{pairs.responses[place]}" for place in places]
        return self.vectors.compare(rows[places], self.embedder.embed(texts))


@dataclass(frozen=True)
class _OpenBlock:
    """What is known of a block of rows. Ask ``verdict`` and call ``keep`` in the order of the rows."""

    quota: Quota
    reasons: dict[int, str]
    block: Block | None

    def verdict(self, row: int) -> tuple[str, int]:
        """Why a row must be dropped, empty if it may be kept; and the row it duplicates, or -1."""
        # Asked again: rows of the same block may have filled the group.
        if self.quota.is_full(row):
            return OVER_THE_QUOTA, -1
        if self.reasons.get(row):
            return self.reasons[row], -1
        twin = self.block.twin(row) if self.block else -1
        return (NEAR_DUPLICATE if twin >= 0 else ""), twin

    def keep(self, row: int) -> None:
        self.quota.take(row)
        if self.block:
            self.block.keep(row)


@dataclass(frozen=True)
class WalkResult:
    """What a walk came to.

    Attributes:
        kept: The kept rows, best first.
        reasons: Rows dropped on the way → why.
        twins: Near-duplicates → the kept row they repeat.
        seen: The kept rows and those dropped on the way, in the order in which they were looked at.
    """

    kept: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    twins: dict[int, int] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)


def walk_rows(order: Iterable[int], limit: int, checks: Checks) -> WalkResult:
    """Keep rows in order until there are enough.

    Args:
        order: Row numbers, best first; some more are taken from it than are looked at.
        limit: How many to keep at most.
        checks: What a kept row must pass. Holds the state of one walk: use it once.

    Returns:
        The kept rows and those dropped before the last of them; rows after that are in neither.
    """
    result, coming = WalkResult(), iter(order)
    while len(result.kept) < limit:
        # Not many more rows than are still to be kept: reading and embedding them is what costs.
        rows = np.fromiter(islice(coming, min(BLOCK, max(64, limit - len(result.kept)))), dtype=np.int64)
        if not len(rows):
            break
        block = checks.open(rows)
        for row in rows.tolist():
            if len(result.kept) == limit:
                break
            result.seen.append(row)
            reason, twin = block.verdict(row)
            if not reason:
                block.keep(row)
                result.kept.append(row)
                continue
            result.reasons[row] = reason
            if twin >= 0:
                result.twins[row] = twin
    return result
