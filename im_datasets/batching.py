"""Texts in, vectors out: batches by token budget, sorted by length, identical inputs once, row order restored.

Knows nothing of models: the caller hands over token ids and a function that runs one batch.

Every sequence is padded to the next multiple of ``LENGTH_MULTIPLE`` above its *own* length and only meets
sequences of that same padded length, and a batch is filled up with copies until its tokens are a multiple of
``KERNEL_ROWS``. On such a number of rows the CPU's matrix products give each row the same bits wherever it stands:
a text's value does not depend on the company it is in, and little is spent on padding.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from math import gcd

import numpy as np
from numpy.typing import NDArray

LENGTH_MULTIPLE = 4
"""Sequences are padded to a multiple of this: 1.5 tokens on average."""

WINDOW = 32
"""Batches per worker that are laid out in advance."""

KERNEL_ROWS = 16
"""The tokens of a batch are a multiple of this."""

Listener = Callable[[int, int], object]
"""Told how much of the work at hand is done, and how much there is."""

_LISTENER: ContextVar[Listener | None] = ContextVar("im_datasets_listener", default=None)


@dataclass(frozen=True)
class TokenBatch:
    """One batch of equally padded sequences.

    Attributes:
        rows: Which sequences these are, shape (n,); fewer than the rows of the arrays when copies fill up.
        input_ids: Shape (batch, length), int64.
        attention_mask: Shape (batch, length), int64; 1 marks a real token.
    """

    rows: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have ``listener(done, total)`` called as long work inside the block goes on.

    ``run_in_batches`` counts real tokens of one call; a search counts rows. The innermost listener is told.

    Example:
        >>> seen = []
        >>> with listening(lambda done, total: seen.append((done, total))):
        ...     report(2, 3)
        >>> seen
        [(2, 3)]
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def report(done: int, total: int) -> None:
    """Tell the listener, if there is one, that ``done`` of ``total`` is done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(done, total)


def token_batches(sequences: Sequence[Sequence[int]], *, pad_id: int, token_budget: int) -> Iterator[TokenBatch]:
    """Cut sequences into batches of one padded length each, longest first.

    Args:
        sequences: Token ids, one list per sequence, none empty.
        pad_id: The id that fills up.
        token_budget: Tokens per batch, padding included; where the fewest sequences that make a multiple of
            ``KERNEL_ROWS`` are already more than that, they still are one batch.

    Yields:
        Batches that together hold every sequence once.
    """
    padded = np.array([_round_up(len(s), LENGTH_MULTIPLE) for s in sequences], dtype=np.int64)
    for length in np.unique(padded)[::-1].tolist():
        rows = np.flatnonzero(padded == length)
        fewest = _fewest(length)
        size = max(fewest, token_budget // length // fewest * fewest)
        for start in range(0, len(rows), size):
            yield _batch(sequences, rows[start : start + size], length, pad_id)


def run_in_batches(
    sequences: Sequence[Sequence[int]],
    forward: Callable[[TokenBatch], NDArray[np.float32]],
    *,
    width: int,
    pad_id: int,
    token_budget: int,
    workers: int = 1,
) -> NDArray[np.float32]:
    """Run ``forward`` over every distinct sequence once and put the results in row order.

    The listener is told the real tokens done and to be done in this call, after each batch.

    Args:
        sequences: Token ids, one list per sequence, none empty.
        forward: From a batch to an array of shape (batch, width). On a MemoryError it is given the two halves
            of the batch instead.
        width: Values per sequence.
        pad_id: The id that fills up.
        token_budget: Tokens per batch, padding included.
        workers: Threads that each run a batch at a time.

    Returns:
        Shape (len(sequences), width), float32.

    Raises:
        MemoryError: The smallest possible batch does not fit either.
    """
    distinct: dict[tuple[int, ...], int] = {}
    places = [distinct.setdefault(tuple(s), len(distinct)) for s in sequences]
    unique = list(distinct)
    results = np.empty((len(unique), width), dtype=np.float32)
    done, total = 0, sum(map(len, unique))
    batches = token_batches(unique, pad_id=pad_id, token_budget=token_budget)
    for batch, values in _in_threads(batches, lambda batch: _run_or_halve(batch, forward), workers):
        results[batch.rows] = values[: len(batch.rows)]
        done += int(batch.attention_mask[: len(batch.rows)].sum())
        report(done, total)
    return results[places] if places else results


def _in_threads(
    batches: Iterator[TokenBatch], run: Callable[[TokenBatch], NDArray[np.float32]], workers: int
) -> Iterator[tuple[TokenBatch, NDArray[np.float32]]]:
    """Each batch with its values, in order; a stop lets the batches that run finish and starts no more."""
    pool = ThreadPoolExecutor(workers)
    try:
        while window := list(islice(batches, WINDOW * workers)):
            yield from zip(window, pool.map(run, window), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_or_halve(batch: TokenBatch, forward: Callable[[TokenBatch], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run a batch, in two halves if it does not fit: shape (batch, width)."""
    count, length = batch.input_ids.shape
    try:
        return forward(batch)
    except MemoryError:
        if count <= _fewest(length):
            raise
    cut = _round_up(count // 2, _fewest(length))
    halves = [
        TokenBatch(batch.rows[part], batch.input_ids[part], batch.attention_mask[part])
        for part in (slice(None, cut), slice(cut, None))
    ]
    return np.concatenate([_run_or_halve(half, forward) for half in halves])


def _fewest(length: int) -> int:
    """The fewest sequences of a padded length whose tokens are a multiple of ``KERNEL_ROWS``."""
    return KERNEL_ROWS // gcd(KERNEL_ROWS, length)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _batch(sequences: Sequence[Sequence[int]], rows: NDArray[np.int64], length: int, pad_id: int) -> TokenBatch:
    copies = _round_up(len(rows), _fewest(length)) - len(rows)
    members = [*rows.tolist(), *[int(rows[0])] * copies]
    input_ids = np.full((len(members), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(members), length), dtype=np.int64)
    for place, row in enumerate(members):
        ids = sequences[row]
        input_ids[place, : len(ids)] = ids
        attention_mask[place, : len(ids)] = 1
    return TokenBatch(rows, input_ids, attention_mask)
