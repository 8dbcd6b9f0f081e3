"""What is asked of a source, checked before anything is read; light, so that the command line can take its options."""

from dataclasses import dataclass
from pathlib import Path

from im_datasets.common.errors import SourceError


@dataclass(frozen=True)
class SourceRequest:
    """Which rows to read, and how.

    Attributes:
        data: A JSON, JSONL, CSV, TSV or Parquet file (or compressed), a glob or folder of them, a folder saved by
            `datasets`, the id of a Hub dataset, or a Dataset.
        config: Config of a Hub dataset.
        split: Split of a Hub or saved dataset.
        revision: Branch, tag or commit of a Hub dataset.
        streaming: Stream a Hub dataset instead of downloading it whole.
        limit: Read at most this many rows.

    Raises:
        SourceError: The limit is below 1, or the data has no name.
    """

    data: object  # to name Dataset here would import `datasets` for every command, and for `--help`
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    streaming: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SourceError(f"limit is {self.limit}; it must be at least 1, or left out for all rows")
        if isinstance(self.data, str | Path) and not str(self.data).strip():
            raise SourceError("the data has an empty name; pass a file, a folder, a glob or the id of a Hub dataset")
