"""Vectors wherever they lie, in memory or in files, as one matrix that is read a few rows at a time."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import IndicatorError
from im_datasets.common.storage import cache_folder, output_errors

Vectors = NDArray[np.float32]
Source = NDArray[np.floating[Any]] | Sequence[str | Path | NDArray[np.floating[Any]]]
"""A matrix (a mapped one too), or its parts in order: matrices and paths of ``.npy`` files."""

BLOCK = 4096
"""Rows read at a time; faiss works in blocks of that size too."""


@dataclass(frozen=True)
class VectorFile:
    """A ``.npy`` file that is open only while it is read, so that a matrix may have more parts than files may be open.

    Attributes:
        path: Where it lies.
        shape: Of the array in it.
    """

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """The file at a path.

        Raises:
            IndicatorError: It cannot be read.
        """
        return cls(Path(path), _mapped(path).shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        mapped = _mapped(self.path)
        if mapped.shape != self.shape:
            raise IndicatorError(f"the vectors in {self.path} changed while they were read; compute them again")
        # A copy: as long as anything of a mapping is held, its file stays open.
        return np.array(mapped[rows])


@dataclass(frozen=True)
class Matrix:
    """The rows of one or more matrices, one after the other, in float32.

    Attributes:
        parts: Each of shape (rows, width), float16, float32 or float64; files where they came as paths.
        starts: The first row of each part and, last, the number of all rows: shape (len(parts) + 1,), int64.
    """

    parts: tuple[NDArray[Any] | VectorFile, ...]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, source: Source) -> Self:
        """The matrix of some vectors; of files only the shape is read.

        Args:
            source: A matrix, or parts of one of equal width: matrices and ``.npy`` files.

        Raises:
            IndicatorError: A file cannot be read, or the parts are not matrices of one width.

        Example:
            >>> parts = [np.zeros((2, 3), dtype=np.float16), np.ones((1, 3), dtype=np.float32)]
            >>> Matrix.of(parts).take(np.array([2, 0])).tolist()
            [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
        """
        several = [source] if isinstance(source, np.ndarray) else source
        parts = tuple(VectorFile.of(part) if isinstance(part, str | Path) else part for part in several)
        shapes = sorted({part.shape[1:] for part in parts})
        if len(shapes) != 1 or len(shapes[0]) != 1:
            raise IndicatorError(f"vectors of shapes {[p.shape for p in parts][:4]}; pass matrices of one width")
        return cls(parts, np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.parts[0].shape[1])

    def whole(self) -> Vectors:
        """All rows in memory; not copied where they are one float32 matrix already."""
        if len(self.parts) == 1:
            return np.ascontiguousarray(self.parts[0][:], dtype=np.float32)
        whole = np.empty((len(self), self.width), dtype=np.float32)
        for start, block in self.blocks():
            whole[start : start + len(block)] = block
        return whole

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[int, Vectors]]:
        """The rows in order, some at a time, with the number of the first of them."""
        for part, first in zip(self.parts, self.starts.tolist(), strict=False):
            for start in range(0, len(part), rows):
                yield first + start, np.ascontiguousarray(part[start : start + rows], dtype=np.float32)

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """Some rows, in the order asked for: shape (len(rows), width)."""
        taken = np.empty((len(rows), self.width), dtype=np.float32)
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(part_of).tolist():
            in_part = part_of == number
            taken[in_part] = self.parts[number][rows[in_part] - self.starts[number]]
        return taken


def knn_folder() -> Path:
    """Where the states of fitted indicators lie, and the vectors of a search while it runs."""
    return cache_folder() / "knn"


def matrix_in_cache(shape: tuple[int, int], matrices: int = 1) -> Vectors:
    """An empty matrix in a nameless file of the cache folder; it goes when the matrix does, whatever ends the process.

    Args:
        shape: Rows and width.
        matrices: How many such matrices the caller needs, for the message.

    Raises:
        OutputError: The folder cannot be written or has no room for it.
    """
    size = shape[0] * shape[1] * np.dtype(np.float32).itemsize
    with output_errors(f"vectors to {knn_folder()}", remedy(size * matrices)):
        knn_folder().mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=knn_folder()) as file:
            # Room on the disk is taken now: were the disk full later, writing to the mapping would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))


def remedy(size: int) -> str:
    """What helps where so many bytes cannot be written to the cache folder."""
    return f"set IM_DATASETS_CACHE to a folder with {size / 2**20:.0f} MiB of room"


def _mapped(path: str | Path) -> NDArray[Any]:
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IndicatorError(f"the vectors in {path} cannot be read ({error}); compute them again") from error
    return mapped
