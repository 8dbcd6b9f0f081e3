"""Items → values through a model, each distinct item once: from the store where it was computed before.

What every indicator with a model stands on. An indicator says how its items become tokens and how a batch of tokens
becomes values; batches, threads, memory that runs out, progress and the store are for here.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.models.batching import KERNEL_ROWS, Batcher, Computed, NumpyBatch, TokenBatch, TokenBudget, Tokens
from im_datasets.models.devices import one_thread_per_batch
from im_datasets.models.meter import count
from im_datasets.models.value_store import Store, current_store

if TYPE_CHECKING:
    import torch

FLUSH_SECONDS = 2.0
"""How long values wait before they are stored: what a killed run loses at most."""

TensorBatch = TokenBatch["torch.Tensor"]
"""A batch on its device."""

_SHARED: ContextVar[dict[bytes, NDArray[np.float32]] | None] = ContextVar("im_datasets_shared_values", default=None)


@dataclass(frozen=True, eq=False)
class BatchRunner:
    """How items become values.

    Attributes:
        tokenize: From some items to their tokens, in order.
        forward: From a batch to a tensor of shape (batch, width).
        width: Values per item.
        pad_id: The id that fills up.
        device: Where ``forward`` runs.
        budget: Tokens per batch.
        longest: No sequence is padded beyond: positions that the model has; None where there is no end to them.
        size: An item's length in characters.
    """

    tokenize: Callable[[Sequence[Any]], Sequence[Tokens]]
    forward: Callable[[TensorBatch], "torch.Tensor"]
    width: int
    pad_id: int
    device: str
    budget: TokenBudget
    longest: int | None = None
    size: Callable[[Any], int] = len

    def run(
        self, items: Sequence[Any], on_batch: Callable[[NDArray[np.int64], Computed], object] | None = None
    ) -> Computed:
        """The values of distinct items, in their order; see ``Batcher.run``."""
        kernel_rows = KERNEL_ROWS if self.device == "cpu" else 1
        with one_thread_per_batch(self.device) as workers:
            batcher = Batcher(self.pad_id, self.budget, self.longest, kernel_rows, workers)
            return batcher.run(items, self.tokenize, self._run, width=self.width, size=self.size, on_batch=on_batch)

    def _run(self, batch: NumpyBatch) -> NDArray[np.float32]:
        import torch

        arrays = (batch.ids, batch.mask, batch.lengths, batch.starts)
        try:
            with torch.inference_mode():
                ids, mask, lengths, starts = (torch.from_numpy(array).to(self.device) for array in arrays)
                tensors = TokenBatch(ids, mask, lengths, starts, batch.rows, batch.group)
                values: NDArray[np.float32] = self.forward(tensors).float().cpu().numpy()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            number, length = batch.ids.shape
            raise MemoryError(f"{number} texts of {length} tokens do not fit on {self.device}") from error
        return values


def compute(items: Sequence[Any], *, space: Mapping[str, Any], load: Callable[[], BatchRunner]) -> Computed:
    """The values of items, copies computed once, those in the store not at all.

    Args:
        items: n hashable items: texts, or tuples of texts.
        space: All that the values depend on beside the item, as plain data.
        load: Gives the runner; not called when the store knows every item.

    Returns:
        Values and whether an item was cut, in the order of the items. A value that is not finite is NaN, and
        is never stored.
    """
    distinct = list(dict.fromkeys(items))
    keys = dict(zip(distinct, _keys(distinct, space), strict=True))
    shared = _SHARED.get()
    # A row per item: its values, and whether it was cut.
    rows: dict[Any, NDArray[np.float32]] = {}
    if shared:
        rows = {item: shared[key] for item, key in keys.items() if key in shared}
    store = current_store()
    stored = store.get(key for item, key in keys.items() if item not in rows) if store else {}
    count(reused=len(stored))
    rows |= {item: np.frombuffer(stored[key], dtype="<f4") for item, key in keys.items() if key in stored}
    if missing := [item for item in distinct if item not in rows]:
        writer = _Writer(store, [keys[item] for item in missing]) if store else None
        try:
            fresh = load().run(missing, writer.add if writer else None)
        # After an error too: what was computed until then is not computed again.
        finally:
            if writer is not None:
                writer.flush()
        columns = np.column_stack([fresh.values, fresh.truncated.astype(np.float32)])
        rows |= zip(missing, columns, strict=True)
    if shared is not None:
        shared.update((keys[item], row) for item, row in rows.items())
    if not items:
        return Computed(np.empty((0, 1), dtype=np.float32), np.empty(0, dtype=np.bool_))
    table = np.stack([rows[item] for item in items]).astype(np.float32)
    values = table[:, :-1]
    return Computed(np.where(np.isfinite(values), values, np.float32(np.nan)), table[:, -1] > 0)


@contextmanager
def sharing_values() -> Iterator[None]:
    """Inside the block no value is computed twice, with a store or without: all are kept in memory until it ends."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


class _Writer:
    """Stores values as batches end, some seconds' worth at a time."""

    def __init__(self, store: Store, keys: list[bytes]) -> None:
        self._store, self._keys = store, keys
        self._waiting: dict[bytes, bytes] = {}
        self._since = time.monotonic()

    def add(self, rows: NDArray[np.int64], computed: Computed) -> None:
        for row, values, truncated in zip(rows.tolist(), computed.values, computed.truncated, strict=True):
            if np.isfinite(values).all():
                self._waiting[self._keys[row]] = np.append(values, np.float32(truncated)).astype("<f4").tobytes()
        if time.monotonic() - self._since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._store.put(self._waiting)
        self._waiting, self._since = {}, time.monotonic()


def _keys(items: Sequence[Any], space: Mapping[str, Any]) -> list[bytes]:
    """One digest per item, of the item and of all that its values depend on."""
    start = blake2b(json.dumps(space, sort_keys=True).encode(), digest_size=20)
    keys = []
    for item in items:
        digest = start.copy()
        # JSON tells a text from a tuple of it, and spells in ASCII what UTF-8 refuses.
        digest.update(json.dumps(item).encode())
        keys.append(digest.digest())
    return keys


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    # What a CPU allocator says has no class of its own.
    return "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
