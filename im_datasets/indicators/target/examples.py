"""Examples of what a model is to do, read once and told apart by a digest: a record names them without their texts."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from im_datasets.common.errors import ColumnsError, IndicatorError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs, Spoken, as_text
from im_datasets.data.prepare import prepare, read_texts
from im_datasets.data.request import SourceRequest

MOST = 5000
"""Examples that an indicator holds at most: it travels with them to every worker."""


@dataclass(frozen=True, repr=False)
class Targets:
    """Examples of a job.

    Attributes:
        pairs: (turns before the response, response) of each, shape (n,); no two are the same.
        hub: ``owner/name@commit`` where they were read from the Hub, else None.
    """

    pairs: tuple[tuple[Spoken, str], ...]
    hub: str | None = None

    @classmethod
    def read(cls, data: Any, columns: Columns | None = None) -> Self:
        """Read examples as rows to be scored are read; of equal ones the first counts.

        Args:
            data: Anything that ``mine`` reads, or a list of rows: dictionaries, or (instruction, response) pairs.
            columns: Where instruction and response stand; None finds them by the names of the columns.

        Raises:
            IndicatorError: It is nothing of this, none of the rows holds a pair, or there are more than ``MOST``.
            SourceError: The data cannot be found or read.
            ColumnsError: Instruction and response cannot be told from the column names.

        Example:
            >>> Targets.read([("Name a fruit.", "An apple."), ("Name a fruit.", "An apple.")])
            Targets(1 examples, sha256 36f83db690d2…)
        """
        from datasets import Dataset

        from im_datasets.data.source import read_source

        if isinstance(data, cls):
            return data
        if not isinstance(data, str | Path | Dataset):
            data = Dataset.from_list(_as_rows(data))
        source = read_source(SourceRequest(data))
        try:
            rows, columns = prepare(source.dataset, columns)
        except ColumnsError as error:
            raise ColumnsError(f"the targets: {error}") from error
        if len(rows) > MOST:
            raise IndicatorError(f"{len(rows):,} targets; pass at most {MOST:,}: some dozens to some hundreds will do")
        pairs = columns.pairs(read_texts(rows, columns)[:])
        _check_scorable(pairs)
        _, scorable = pairs.scorable()
        info = source.info
        is_pinned = info["kind"] == "hub" and info["revision"]
        distinct = dict.fromkeys(zip(scorable.contexts, scorable.responses, strict=True))
        return cls(tuple(distinct), f"{info['id']}@{info['revision']}" if is_pinned else None)

    @property
    def instructions(self) -> list[str]:
        """Each context as one text, shape (n,)."""
        return [as_text(context) for context, _ in self.pairs]

    @property
    def responses(self) -> list[str]:
        """Shape (n,)."""
        return [response for _, response in self.pairs]

    @property
    def sha256(self) -> str:
        """Of the pairs in their order as ASCII JSON: ``[[[[role, text], …], response], …]``."""
        return sha256(json.dumps(self.pairs).encode("ascii")).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Number, digest and origin, as plain data for a record: no text, and no path of this machine."""
        return {"examples": len(self), "sha256": self.sha256, "hub": self.hub}

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Targets({len(self)} examples, sha256 {self.sha256[:12]}…)"


def _as_rows(data: Any) -> list[dict[str, Any]]:
    """Rows of a dataset from a list of dictionaries or of pairs."""
    rows = list(data) if isinstance(data, Sequence) else []
    if rows and all(isinstance(row, Mapping) for row in rows):
        return [dict(row) for row in rows]
    if rows and all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
        return [{"instruction": instruction, "response": response} for instruction, response in rows]
    what = "an empty list" if isinstance(data, Sequence) and not rows else f"{type(data).__name__} {data!r:.60}"
    raise IndicatorError(
        f"targets are {what}; pass a file, a Hub id, a Dataset, or a list of rows or of (instruction, response) pairs"
    )


def _check_scorable(pairs: Pairs) -> None:
    """Refuse targets of which none holds a pair, and tell of some that do not."""
    if unread := [row for row, reason in enumerate(pairs.reasons) if reason]:
        problem = f"{len(unread)} of {len(pairs)} targets hold no pair (row {unread[0]}: {pairs.reasons[unread[0]]})"
        if len(unread) == len(pairs):
            raise IndicatorError(f"{problem}; pass rows with an instruction and a response")
        warnings.warn(f"{problem}; these are left out", stacklevel=3)
