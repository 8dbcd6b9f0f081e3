"""Shards computed on this machine: in this process, or by several workers side by side.

Workers are fresh processes, never forks, and share the cores among them. One that dies is noticed, and its shard goes
to a new one; a shard over which several die is searched for the row that kills them.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from im_datasets.common.errors import IndicatorError
from im_datasets.models.value_store import current_store
from im_datasets.scoring.engines.base import Job, Watcher, died_over, first_killer
from im_datasets.scoring.engines.worker import Failed, Finished, Moved, Setup, Task

TRIES = 3
"""Workers that may die over one shard."""

AHEAD = 2
"""Shards that a worker is handed at a time, so that it never waits for the next."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_STARTER = "import sys; sys.path[:] = {path!r}; from im_datasets.scoring.engines.worker import main; main({descriptor})"


@dataclass(frozen=True)
class LocalEngine:
    """This machine.

    Attributes:
        workers: Processes that compute shards; with 1 it is this process.

    Raises:
        IndicatorError: Fewer than one worker.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse a number that is none."""
        if self.workers < 1:
            raise IndicatorError(f"workers={self.workers}; pass 1 or more")

    def run(self, job: Job, watcher: Watcher) -> None:
        """Compute and write every missing shard; see ``ShardEngine.run``.

        Raises:
            IndicatorError: Workers died over a shard, time and again.
        """
        if min(self.workers, len(job.missing)) > 1:
            with _Pool(job, watcher, min(self.workers, len(job.missing))) as pool:
                pool.run()
            return
        for shard in job.missing:
            start = job.shards.span(shard).start
            scored = job.scorer(job.rows(shard), start, partial(watcher.moved, shard))
            job.shards.write(shard, scored)
            watcher.finished(shard, scored.meter)


@dataclass
class _Worker:
    """A process and the shards it was handed, the one it is at first."""

    process: subprocess.Popen[bytes]
    connection: Connection
    tasks: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, setup: bytes, threads: int) -> Self:
        """A fresh process, told what it is for.

        Args:
            setup: A pickled ``Setup``.
            threads: How many it may use.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            code = _STARTER.format(path=sys.path, descriptor=theirs.fileno())
            process = subprocess.Popen(  # noqa: S603 - our own Python and code
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
                # Ctrl-C is for the process that runs the engine, which ends its workers.
                process_group=0,
            )
            worker = cls(process, Connection(ours.detach()))
        worker.send(setup)
        return worker

    def send(self, message: bytes) -> None:
        """Hand over a message; that a worker is dead is found out where its answers are read."""
        try:
            self.connection.send_bytes(message)
        except OSError:
            return

    def receive(self) -> Any:
        """The next message; None where the worker is dead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def death(self) -> str:
        """End the process, if it has not ended, and say how it did."""
        try:
            code: int | None = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self.stop()
        if code is None or code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"it was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def stop(self) -> None:
        """Kill the process, whatever it is at: files are renamed only when they are whole."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


class _Pool:
    """Workers side by side over the shards of a job; none is left when the block ends."""

    def __init__(self, job: Job, watcher: Watcher, workers: int) -> None:
        self._job, self._watcher, self._count = job, watcher, workers
        self._waiting = deque(job.missing)
        self._deaths: Counter[int] = Counter()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self) -> None:
        """Have all shards computed."""
        for rank in range(self._count):
            self._workers.append(self._start(rank))
        while self._waiting or any(worker.tasks for worker in self._workers):
            for worker in self._workers:
                self._feed(worker)
            for connection in wait([worker.connection for worker in self._workers]):
                rank = next(r for r, worker in enumerate(self._workers) if worker.connection is connection)
                self._hear(rank)

    def _start(self, rank: int) -> _Worker:
        import dill

        store = current_store()
        folder = store.path.parent.absolute() if store else None
        setup = Setup(self._job.scorer, self._job.shards, rank, self._count, folder)
        return _Worker.start(dill.dumps(setup, recurse=True), max(1, _cores() // self._count))

    def _feed(self, worker: _Worker) -> None:
        while self._waiting and len(worker.tasks) < AHEAD:
            shard = self._waiting.popleft()
            worker.tasks.append(shard)
            worker.send(_message(shard, self._job.shards.span(shard).start, self._job.rows(shard), keep=True))

    def _hear(self, rank: int) -> None:
        worker = self._workers[rank]
        match worker.receive():
            case Moved(shard, rows, tokens):
                self._watcher.moved(shard, rows, tokens)
            case Finished(shard, meter):
                worker.tasks.popleft()
                self._watcher.finished(shard, meter)
            case Failed(error):
                raise error
            case _:
                self._replace(rank)

    def _replace(self, rank: int) -> None:
        """Put a fresh worker in the place of a dead one; its shards wait again, the one it died over first."""
        worker = self._workers[rank]
        why = worker.death()
        shard = worker.tasks[0] if worker.tasks else -1
        self._deaths[shard] += 1
        self._watcher.noted("retry", shard=shard, why=why, tries=self._deaths[shard])
        self._waiting.extendleft(reversed(worker.tasks))
        worker.tasks.clear()
        if self._deaths[shard] >= TRIES:
            raise self._given_up(shard, why)
        self._workers[rank] = self._start(rank)

    def _given_up(self, shard: int, why: str) -> IndicatorError:
        if shard < 0:
            return IndicatorError(f"{TRIES} workers died before they had any work: {why}; try --workers 1")
        for worker in self._workers:
            worker.stop()
        return died_over(TRIES, self._job.shards.span(shard), self._find_row(shard), why)

    def _find_row(self, shard: int) -> int | None:
        """The row that kills a worker by itself; None where only several together do."""
        start, rows = self._job.shards.span(shard).start, self._job.rows(shard)
        found = first_killer(rows.num_rows, lambda low, high: self._kills(start + low, rows[low:high]))
        return None if found is None else start + found

    def _kills(self, start: int, rows: pa.Table) -> bool:
        """Whether a worker of its own dies over these rows."""
        worker = self._start(0)
        try:
            worker.send(_message(0, start, rows, keep=False))
            while isinstance(answer := worker.receive(), Moved):
                pass
            return answer is None
        finally:
            worker.stop()


def _message(shard: int, start: int, rows: pa.Table, *, keep: bool) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return pickle.dumps(Task(shard, start, sink.getvalue().to_pybytes(), keep))


def _cores() -> int:
    """Cores that this process may use."""
    allowed: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
