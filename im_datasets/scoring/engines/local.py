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
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.scoring.culprit import died_over
from im_datasets.scoring.engines.base import AHEAD, TRIES, Job, ShardEngine, store_folder
from im_datasets.scoring.engines.worker import Failed, Finished, Moved, Task, WorkerSetup
from im_datasets.scoring.progress import Progress

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
# Not ``-m``: a worker finds modules where this process does, those of a user's indicator too.
_STARTER = "import sys; sys.path[:] = {path!r}; from im_datasets.scoring.engines.worker import main; main({descriptor})"


@dataclass(frozen=True)
class LocalEngine(ShardEngine):
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

    @override
    def run(self, job: Job, progress: Progress) -> None:
        workers = min(self.workers, len(job.missing))
        if workers > 1:
            with closing(_Pool(job, progress, workers)) as pool:
                pool.run()
            return
        for shard in job.missing:
            start = job.shards.span(shard).start
            scored = job.scorer(job.rows(shard), start, partial(progress.moved, shard))
            job.shards.write(shard, scored)
            progress.finished(shard, scored.meter)


@dataclass
class _Worker:
    """A process and the shards it was handed, the one it is at first."""

    process: subprocess.Popen[bytes]
    connection: Connection
    tasks: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, setup: bytes, threads: int) -> Self:
        """A fresh process that may use some threads, with its first message, a pickled ``WorkerSetup``."""
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
        with suppress(OSError):
            self.connection.send_bytes(message)

    def receive(self) -> Any:
        """The next message; None where the worker is dead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def death(self) -> str:
        """End the process, if it has not ended, and say how it did."""
        try:
            # The socket is closed a moment before the process has ended.
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
    """Workers side by side over the shards of a job."""

    def __init__(self, job: Job, progress: Progress, workers: int) -> None:
        self._job, self._progress, self._count = job, progress, workers
        self._waiting = deque(job.missing)
        self._deaths: Counter[int] = Counter()
        self._workers: list[_Worker] = []

    def close(self) -> None:
        """Leave no worker behind."""
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

        setup = WorkerSetup(self._job.scorer, self._job.shards, rank, self._count, store_folder())
        return _Worker.start(dill.dumps(setup, recurse=True), max(1, _cores() // self._count))

    def _feed(self, worker: _Worker) -> None:
        while self._waiting and len(worker.tasks) < AHEAD:
            shard = self._waiting.popleft()
            worker.tasks.append(shard)
            task = Task.of(shard, self._job.shards.span(shard).start, self._job.rows(shard))
            worker.send(pickle.dumps(task))

    def _hear(self, rank: int) -> None:
        worker = self._workers[rank]
        match worker.receive():
            case Moved(shard, rows, tokens):
                self._progress.moved(shard, rows, tokens)
            case Finished(shard, meter):
                worker.tasks.popleft()
                self._progress.finished(shard, meter)
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
        self._progress.noted("retry", shard=shard, why=why, tries=self._deaths[shard])
        self._waiting.extendleft(reversed(worker.tasks))
        worker.tasks.clear()
        if self._deaths[shard] >= TRIES:
            raise self._error_over(shard, why)
        self._workers[rank] = self._start(rank)

    def _error_over(self, shard: int, why: str) -> IndicatorError:
        if shard < 0:
            return IndicatorError(f"{TRIES} workers died before they had any work: {why}; try --workers 1")
        # The search needs the memory and the GPU that the others hold.
        self.close()
        return died_over(TRIES, self._job.shards.span(shard), self._kills, why)

    def _kills(self, span: range) -> bool:
        """Whether a worker of its own dies over these rows."""
        worker = self._start(0)
        try:
            worker.send(pickle.dumps(Task.of(0, span.start, self._job.source().read(span), keep=False)))
            while isinstance(message := worker.receive(), Moved):
                pass
            return message is None
        finally:
            worker.stop()


def _cores() -> int:
    """Cores that this process may use."""
    allowed: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
