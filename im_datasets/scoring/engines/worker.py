"""What a worker process does: shards come through a socket, their scores go to the folder.

Started as a fresh Python by ``local``, with its number of threads in its environment. Imports nothing heavy until it
has its first message. When the other end of the socket closes, whatever the reason, the process ends at once, so
that no worker outlives its run.
"""

import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import pyarrow as pa

    from im_datasets.scoring.scorer import ShardScorer
    from im_datasets.scoring.shards import ShardMeter, Shards

REPORTED_EVERY = 0.2
"""Seconds between two messages about a shard that is being computed."""


class Task(NamedTuple):
    """A shard to compute.

    Attributes:
        shard: Its number.
        start: Number of the first row.
        rows: The rows, as an Arrow stream.
        keep: Whether it is written; else it is only computed, to see whether that works.
    """

    shard: int
    start: int
    rows: bytes
    keep: bool = True

    @classmethod
    def of(cls, shard: int, start: int, table: "pa.Table", *, keep: bool = True) -> Self:
        """The task of scoring the rows of a table."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return cls(shard, start, sink.getvalue().to_pybytes(), keep)

    def table(self) -> "pa.Table":
        """The rows."""
        import pyarrow as pa

        return pa.ipc.open_stream(self.rows).read_all()


class Moved(NamedTuple):
    """So many rows of a shard are done, and so many tokens went through models."""

    shard: int
    rows: int
    tokens: int


class Finished(NamedTuple):
    """A shard was computed and, where it was to be kept, written."""

    shard: int
    meter: "ShardMeter"


class Failed(NamedTuple):
    """An error ended the work on a shard."""

    error: Exception


@dataclass(frozen=True)
class WorkerSetup:
    """The first message to a worker.

    Attributes:
        scorer: Scores the rows of a shard.
        shards: Where they go.
        rank: The worker's number, so that each takes a GPU of its own.
        workers: How many there are.
        store: Folder of the store of computed values; None keeps nothing.
    """

    scorer: "ShardScorer"
    shards: "Shards"
    rank: int
    workers: int
    store: Path | None


def main(descriptor: int) -> None:
    """Serve at a socket, by its file descriptor, until the other end closes."""
    connection = Connection(descriptor)
    messages: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, messages), daemon=True).start()
    try:
        _serve(connection, messages)
    except Exception as error:  # noqa: BLE001 - it is raised again in the process that runs the engine
        connection.send(Failed(portable(error)))


def _listen(connection: Connection, messages: "SimpleQueue[bytes]") -> None:
    """Take in messages beside the work, and end the process with the connection."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        # This is a thread: an exception would end it alone, and the main one may be amid a long computation.
        os._exit(1)


def _serve(connection: Connection, messages: "SimpleQueue[bytes]") -> None:
    import dill

    setup: WorkerSetup = dill.loads(messages.get())  # noqa: S301 - from the process that started this one
    from im_datasets.models.devices import on_rank
    from im_datasets.models.embedder import share_cache
    from im_datasets.models.value_store import using_store

    share_cache(setup.workers)
    with on_rank(setup.rank), using_store(setup.store):
        while True:
            task: Task = pickle.loads(messages.get())  # noqa: S301 - from the process that started this one
            connection.send(_compute(setup, task, connection))


def _compute(setup: WorkerSetup, task: Task, connection: Connection) -> Finished:
    listener = throttled(lambda rows, tokens: connection.send(Moved(task.shard, rows, tokens)))
    scored = setup.scorer(task.table(), task.start, listener)
    scored.meter.workers = setup.workers
    if task.keep:
        setup.shards.write(task.shard, scored)
    return Finished(task.shard, scored.meter)


def throttled(send: Callable[[int, int], object]) -> Callable[[int, int], None]:
    """A scorer's listener that passes on what it hears, but seldom enough to cost nothing."""
    last = time.monotonic()

    def listener(rows: int, tokens: int) -> None:
        nonlocal last
        if time.monotonic() - last > REPORTED_EVERY:
            last = time.monotonic()
            send(rows, tokens)

    return listener


def portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot travel."""
    from im_datasets.common.errors import ImDatasetsError, IndicatorError, message_of

    if isinstance(error, ImDatasetsError):
        return type(error)(str(error))
    return IndicatorError(f"a worker failed ({type(error).__name__}: {message_of(error, 500)})")
