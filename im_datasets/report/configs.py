"""The configs of a published dataset and the files they are made of."""

from dataclasses import dataclass
from hashlib import file_digest, sha1, sha256
from pathlib import Path
from typing import Self

MANIFEST = "instructmining.json"


SMALL_BYTES = 10 * 2**20
"""Files up to this size may lie in git itself."""


@dataclass(frozen=True)
class Published:
    """A file of a publication.

    Attributes:
        sha256: Of its content, 64 hexadecimal digits.
        size: In bytes.
        git_sha1: Its name as a git blob, by which git knows a small file; None for a big one.
    """

    sha256: str
    size: int
    git_sha1: str | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Describe a content."""
        blob = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return cls(sha256(content).hexdigest(), len(content), blob)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Describe a file; a big one is read in pieces."""
        size = path.stat().st_size
        if size <= SMALL_BYTES:
            return cls.of(path.read_bytes())
        with path.open("rb") as file:
            return cls(file_digest(file, "sha256").hexdigest(), size)


@dataclass(frozen=True)
class Config:
    """A config of the dataset.

    Attributes:
        rows: How many.
        columns: Their names, in order.
        files: Its Parquet shards, in order.
    """

    rows: int
    columns: list[str]
    files: list[str]
