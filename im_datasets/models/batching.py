"""Items in, values out: batches by token budget, sorted by length, tokenised ahead, row order restored.

Knows nothing of models: the caller hands over how items become tokens and a function that runs one batch.

Every sequence is padded to a length that its *own* length says and only meets sequences of that same padded
length, and a batch is filled up with copies until its tokens are a multiple of ``kernel_rows``. On such a number of
rows the CPU's matrix products give each row the same bits wherever it stands: an item's value does not depend on the
company it is in, and little is spent on padding.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from im_datasets.models.meter import count, report

KERNEL_ROWS = 16
"""The tokens of a batch on a CPU are a multiple of this."""

STEPS = ((48, 4), (128, 8))
"""Sequences of up to so many tokens are padded to a multiple of that, longer ones to one of ``KERNEL_ROWS``: short ones
are many, so that copies that fill up a batch cost less than padding; with long ones it is the other way round."""

SLICE = 1024
"""Items that are tokenised at a time, while the slice before runs."""


class Tokens(NamedTuple):
    """One item as a model reads it.

    Attributes:
        ids: Token ids; at least one.
        start: Where the second part begins: the second text of a pair, or the tokens that are scored.
        group: Only sequences of one group meet in a batch.
        truncated: Whether the item was longer than the model reads.
        unfinished: Whether its second part lost its end.
    """

    ids: Sequence[int]
    start: int = 0
    group: int = 0
    truncated: bool = False
    unfinished: bool = False


def padded_length(tokens: int, longest: int | None = None) -> int:
    """The length that a sequence is padded to.

    Args:
        tokens: Its own length.
        longest: No sequence is padded beyond.

    Example:
        >>> padded_length(9), padded_length(97), padded_length(129), padded_length(129, longest=130)
        (12, 104, 144, 130)
    """
    multiple = next((multiple for most, multiple in STEPS if tokens <= most), KERNEL_ROWS)
    padded = _round_up(tokens, multiple)
    return padded if longest is None else max(tokens, min(padded, longest))


class TokenBudget:
    """Tokens per batch, padding included; shrinks for good when a batch does not fit."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    @classmethod
    def on(cls, device: str, budgets: Mapping[str, int]) -> Self:
        """The budget of a device, such as ``cuda:1``, of those by kind; of a kind that is not among them the CPU's."""
        return cls(budgets.get(device.partition(":")[0], budgets["cpu"]))

    def shrink(self, tokens: int) -> None:
        """Allow no more than that from now on."""
        self.tokens = min(self.tokens, tokens)

    def __repr__(self) -> str:
        return f"TokenBudget({self.tokens})"


Array = TypeVar("Array")


@dataclass(frozen=True, eq=False)
class TokenBatch(Generic[Array]):
    """One batch of equally padded sequences, padded on the right: arrays of NumPy, or tensors on a device.

    Attributes:
        ids: Token ids, shape (batch, length), int64.
        mask: 1 for a real token, shape (batch, length), int64.
        lengths: Real tokens of each sequence, shape (batch,), int64.
        starts: Where each sequence's second part begins, shape (batch,), int64.
        rows: Which items these are, shape (n,); fewer than the sequences when copies fill up.
        group: The group of all of them.
    """

    ids: Array
    mask: Array
    lengths: Array
    starts: Array
    rows: NDArray[np.int64]
    group: int = 0


NumpyBatch = TokenBatch[NDArray[np.int64]]


class Computed(NamedTuple):
    """What became of some items.

    Attributes:
        values: Shape (n, width), float32.
        truncated: Shape (n,), bool: the item was longer than the model reads.
    """

    values: NDArray[np.float32]
    truncated: NDArray[np.bool_]


Forward = Callable[[NumpyBatch], NDArray[np.float32]]
"""From a batch to an array of shape (batch, width); a MemoryError has it called again with half of the batch."""


@dataclass(frozen=True)
class Batcher:
    """How sequences are put together.

    Attributes:
        pad_id: The id that fills up.
        budget: Tokens per batch; where the fewest sequences that make a multiple of ``kernel_rows`` are already
            more than that, they still are one batch.
        longest: No sequence is padded beyond: positions that the model has; None where there is no end to them.
        kernel_rows: The tokens of a batch are a multiple of this; 1 where bits need not be the same.
        workers: Threads that each run a batch at a time.
    """

    pad_id: int
    budget: TokenBudget
    longest: int | None = None
    kernel_rows: int = KERNEL_ROWS
    workers: int = 1

    def batches(self, slices: Iterable[Sequence[tuple[int, Tokens]]]) -> Iterator[NumpyBatch]:
        """Cut a stream of numbered sequences into batches of one padded length and one group each.

        Yields:
            Batches that together hold every sequence once: full ones as they fill up, then the rest, longest
            first.
        """
        waiting: dict[tuple[int, int], list[tuple[int, Tokens]]] = defaultdict(list)
        for piece in slices:
            for row, tokens in piece:
                kind = (padded_length(len(tokens.ids), self.longest), tokens.group)
                waiting[kind].append((row, tokens))
                if len(waiting[kind]) >= self._most(kind[0]):
                    yield self._batch(waiting.pop(kind), kind[0])
        for length, group in sorted(waiting, reverse=True):
            yield self._batch(waiting[length, group], length)

    def run(
        self,
        items: Sequence[Any],
        tokenize: Callable[[Sequence[Any]], Sequence[Tokens]],
        forward: Forward,
        *,
        width: int,
        size: Callable[[Any], int] = len,
        on_batch: Callable[[NDArray[np.int64], Computed], object] | None = None,
    ) -> Computed:
        """Run ``forward`` over every item once and put the results in the order of the items.

        The listener is told the share that is done after each batch, the meter the real tokens.

        Args:
            items: What is to be computed; the caller leaves out copies.
            tokenize: From some items to their tokens, in order. Called in another thread, a slice at a time.
            forward: Runs a batch.
            width: Values per item.
            size: An item's length in characters, by which the items are sorted before they are tokenised.
            on_batch: Told the places of a batch's items and their results as soon as they are there.

        Raises:
            MemoryError: The smallest possible batch does not fit either.
        """
        computed = Computed(np.empty((len(items), width), dtype=np.float32), np.zeros(len(items), dtype=np.bool_))
        sizes = np.array([size(item) for item in items], dtype=np.int64)
        # The longest first: a batch that does not fit shrinks the budget before most are cut.
        order = np.argsort(-sizes, kind="stable").tolist()

        def sliced() -> Iterator[list[tuple[int, Tokens]]]:
            for start in range(0, len(order), SLICE):
                rows = order[start : start + SLICE]
                sequences = tokenize([items[row] for row in rows])
                computed.truncated[rows] = [tokens.truncated for tokens in sequences]
                yield list(zip(rows, sequences, strict=True))

        # In characters, and one for each item so that empty ones count too.
        done, total = 0, int(sizes.sum()) + len(items)
        batches = self.batches(_ahead(sliced()))
        for batch, values in _in_threads(batches, lambda batch: self._run_or_halve(batch, forward), self.workers):
            real = len(batch.rows)
            computed.values[batch.rows] = values[:real]
            if on_batch is not None:
                on_batch(batch.rows, Computed(values[:real], computed.truncated[batch.rows]))
            done += int(sizes[batch.rows].sum()) + real
            count(tokens=int(batch.lengths[:real].sum()), computed=real)
            report(done, total)
        return computed

    def _most(self, length: int) -> int:
        """Sequences of a padded length that make a full batch."""
        fewest = self._fewest(length)
        return max(fewest, self.budget.tokens // length // fewest * fewest)

    def _fewest(self, length: int) -> int:
        """The fewest sequences of a padded length whose tokens are a multiple of ``kernel_rows``."""
        return self.kernel_rows // gcd(self.kernel_rows, length)

    def _batch(self, members: list[tuple[int, Tokens]], length: int) -> NumpyBatch:
        rows = np.array([row for row, _ in members], dtype=np.int64)
        copies = _round_up(len(members), self._fewest(length)) - len(members)
        sequences = [tokens for _, tokens in members] + [members[0][1]] * copies
        ids = np.full((len(sequences), length), self.pad_id, dtype=np.int64)
        for place, tokens in enumerate(sequences):
            ids[place, : len(tokens.ids)] = tokens.ids
        lengths = np.array([len(tokens.ids) for tokens in sequences], dtype=np.int64)
        starts = np.array([tokens.start for tokens in sequences], dtype=np.int64)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        return TokenBatch(ids, mask, lengths, starts, rows, sequences[0].group)

    def _run_or_halve(self, batch: NumpyBatch, forward: Forward) -> NDArray[np.float32]:
        """Run a batch, in two halves if it does not fit or one of its size did not: shape (batch, width)."""
        number, length = batch.ids.shape
        fewest = self._fewest(length)
        if number <= fewest or batch.ids.size <= self.budget.tokens:
            try:
                return forward(batch)
            except MemoryError:
                if number <= fewest:
                    raise
                self.budget.shrink(batch.ids.size // 2)
        cut = _round_up(number // 2, fewest)
        values = []
        # ``rows`` stays that of the whole batch: it is matched with values only after they are put together.
        for part in (slice(None, cut), slice(cut, None)):
            arrays = {name: getattr(batch, name)[part] for name in ("ids", "mask", "lengths", "starts")}
            values.append(self._run_or_halve(replace(batch, **arrays), forward))
        return np.concatenate(values)


def _ahead(iterator: Iterator[Any]) -> Iterator[Any]:
    """What an iterator gives, the next thing being made in a thread meanwhile."""
    # Instead of StopIteration, which cannot leave a generator when it comes out of a future.
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (piece := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield piece


def _in_threads(
    batches: Iterator[NumpyBatch], run: Callable[[NumpyBatch], NDArray[np.float32]], workers: int
) -> Iterator[tuple[NumpyBatch, NDArray[np.float32]]]:
    """Each batch with its values, in order; a stop lets the batches that run finish and starts no more."""
    pool = ThreadPoolExecutor(workers)
    flying: deque[tuple[NumpyBatch, Future[NDArray[np.float32]]]] = deque()
    try:
        for batch in batches:
            flying.append((batch, pool.submit(run, batch)))
            # One that runs and one that is ready for each worker: more would only take memory.
            if len(flying) > 2 * workers:
                first, values = flying.popleft()
                yield first, values.result()
        while flying:
            first, values = flying.popleft()
            yield first, values.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
