"""Shards computed on a Ray cluster, by Ray Data: tasks read rows, a pool of actors scores them, the driver writes.

Rows come from the dataset's own Parquet files where every node sees them (on the Hub, in a shared folder), else from
the driver's node. Finished shards go through Ray's object store to the driver, which writes them as any engine does, so
that workers need no folder in common. They come back in any order; a shard is known by its number.
"""

import logging
import math
import os
import re
import socket
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from im_datasets.common.errors import EngineError, MissingExtraError
from im_datasets.models.value_store import current_store
from im_datasets.scoring.engines.base import Job, Watcher, died_over, first_killer
from im_datasets.scoring.engines.parquet_rows import RowFiles
from im_datasets.scoring.engines.ray_worker import (
    Board,
    Lost,
    Rows,
    Setup,
    ShardActor,
    read_rows,
    read_task,
    sees,
    surroundings,
    survive,
    unpacked,
)
from im_datasets.scoring.engines.worker import Failed

TRIES = 3
"""Actors that may die over one shard."""

AHEAD = 2
"""Shards that an actor is handed at a time, so that it never waits for the next."""

NODE = "ray.io/node-id"
"""The label that Ray gives each node."""

POLLED_EVERY = 0.5
"""Seconds between two looks at the board."""

ANSWERED_WITHIN = 10
"""Seconds that the head of a cluster has to take a connection: Ray itself would ask for a quarter of an hour."""

SEEN_WITHIN = 60
"""Seconds that nodes have to say whether they see the files; those that have not are sent rows."""

LONGEST_GROUP = 4
"""Shards that a row group may be long where tasks read files: each of them fetches the whole group."""


@dataclass(frozen=True)
class RayEngine:
    """A Ray cluster.

    Attributes:
        workers: Actors that score side by side, each with its own models; more than the cluster holds now make an
            autoscaling cluster grow. None takes one per GPU where the models run on GPUs, else as many as there are
            cores for.
        address: Of the cluster, as ``ray.init`` takes it. None takes the cluster that this process is connected to
            or that ``RAY_ADDRESS`` names, else starts one on this machine for the time of the run.
        cpus: Cores and threads of an actor.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: A number of workers or cores that is none, or an address of Ray's client.
    """

    workers: int | None = None
    address: str | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is read."""
        if (self.workers is not None and self.workers < 1) or self.cpus < 1:
            raise EngineError(f"workers={self.workers}, cpus={self.cpus}; pass 1 or more of each")
        _refuse_client(self.address or "")
        _ray()

    def run(self, job: Job, watcher: Watcher) -> None:
        """Compute and write every missing shard; see ``ShardEngine.run``.

        Raises:
            EngineError: The cluster cannot be reached or differs from this process, or a worker was lost too often.
            IndicatorError: Workers died over a shard, time and again.
        """
        if not job.missing:
            return
        with _cluster(self.address) as own, _Run(self, job, watcher, own) as run:
            run.compute()


def _ray() -> Any:
    """Ray with Ray Data.

    Raises:
        MissingExtraError: It is not installed.
    """
    # Ray counts its users unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError as error:
        raise MissingExtraError("the Ray engine needs Ray; pip install 'im-datasets[ray]'") from error
    return ray


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have a cluster that is started inside the block listen on loopback alone.

    Ray takes 127.0.0.1 for the address that other machines reach this one by, unless it is told that there are none.
    """
    from ray._private import ray_constants

    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, told = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(variable)
    # This process has read the variable by now; the cluster's own processes will.
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[variable] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(variable)
        if told is not None:
            os.environ[variable] = told


@contextmanager
def _cluster(address: str | None) -> Iterator[bool]:
    """Be connected to a cluster; says whether it was started for this run."""
    ray = _ray()
    if ray.is_initialized():
        _check_connected(address)
        yield False
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    _refuse_client(where)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if where == "local":
            with on_loopback():
                ray.init(where, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            _knock(where)
            ray.init(where, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EngineError(
            f"no Ray cluster at {where} ({' '.join(str(error).split())[:300]}); start one (ray start --head) and pass "
            "its address, or leave --address out for one on this machine"
        ) from error
    try:
        yield where == "local"
    finally:
        ray.shutdown()


def _refuse_client(where: str) -> None:
    if where.startswith("ray://"):
        raise EngineError(
            f"{where} is Ray's client; run this on a node of the cluster, as ray job submit does, and pass the "
            "cluster's own address or auto"
        )


def _check_connected(address: str | None) -> None:
    """Refuse an address that is not the one this process is connected to."""
    here: str = _ray().get_runtime_context().gcs_address
    if address is None or address in {"auto", here} or _resolved(address) == _resolved(here):
        return
    raise EngineError(
        f"this process is connected to the Ray cluster at {here}, not {address}; pass that or no address, or call "
        "ray.shutdown() first"
    )


def _resolved(where: str) -> tuple[str, int] | str:
    """IP address and port, this machine's as Ray has it; the address itself where it has none."""
    place = _host_and_port(where)
    if place is None:
        return where
    try:
        found = socket.gethostbyname(place[0])
    except OSError:
        return where
    return (_ray().util.get_node_ip_address() if found.startswith("127.") else found), place[1]


def _knock(where: str) -> None:
    """See that something takes connections at an address, where it is one.

    Raises:
        OSError: Nothing does.
    """
    place = _host_and_port(where)
    if place is not None:
        socket.create_connection(place, timeout=ANSWERED_WITHIN).close()


def _host_and_port(where: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", where)
    return (found[1], int(found[2])) if found else None


def fitting(nodes: Sequence[Mapping[str, Any]], cpus: int, gpus: int) -> int:
    """How many actors the living nodes can hold, each whole on one node.

    Args:
        nodes: As ``ray.nodes()`` tells of them.
        cpus: Cores of an actor.
        gpus: GPUs of an actor.

    Example:
        >>> small, large = ({"Alive": True, "Resources": {"CPU": cores}} for cores in (3.0, 4.0))
        >>> fitting([small, large], cpus=2, gpus=0), fitting([small, large], cpus=5, gpus=0)
        (3, 0)
    """
    live = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(int(min(has.get("CPU", 0) // cpus, has.get("GPU", 0) // gpus if gpus else math.inf)) for has in live)


class _LostShardError(Exception):
    """Actor after actor was lost over a shard."""

    def __init__(self, shard: int, tries: int) -> None:
        super().__init__(shard, tries)
        self.shard, self.tries = shard, tries


@dataclass
class _Run:
    """A job on the cluster."""

    engine: RayEngine
    job: Job
    watcher: Watcher
    own: bool
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _done: set[int] = field(default_factory=set)
    _tried: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.ray = _ray()
        self._node: str = self.ray.get_runtime_context().get_node_id()
        self._board = self.ray.remote(num_cpus=0, label_selector={NODE: self._node})(Board).remote()
        self._surroundings = surroundings(self.job.scorer)
        self._gpus = int(any(str(model["device"]).startswith("cuda") for model in self._surroundings["models"]))
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._poller.join()
        self.ray.kill(self._board)

    def compute(self) -> None:
        """Have all shards computed, and write each as it comes."""
        workers = self._workers()
        setup = self._setup(workers)
        try:
            # Closed at once when an error ends it, so that its actors free their cores.
            with self._quiet(), closing(self._answers(setup, workers)) as stream:
                for answers in stream:
                    for shard, message in unpacked(answers):
                        self._take(shard, message)
            self._look()
        except _LostShardError as error:
            row = self._find_row(error.shard, setup)
            raise died_over(error.tries, self.job.shards.span(error.shard), row, "Ray lost them") from None
        except self.ray.exceptions.RayError as error:
            what = " ".join(str(error).split())[:500]
            raise EngineError(
                f"Ray gave up ({type(error).__name__}: {what}); run the same again: finished shards are kept"
            ) from error

    def _setup(self, workers: int) -> bytes:
        import dill

        store = current_store()
        folder = store.path.parent.absolute() if store else None
        setup = Setup(self.job.scorer, TRIES, workers, self.engine.cpus, self._surroundings, self._node, folder)
        pickled: bytes = dill.dumps(setup, recurse=True)
        return pickled

    def _workers(self) -> int:
        """How many actors there shall be.

        Raises:
            EngineError: No node can hold one, and none will come.
        """
        cpus, gpus = self.engine.cpus, self._gpus
        fits = fitting(self.ray.nodes(), cpus, gpus)
        if not fits and self.own:
            what = f"{cpus} cores and a GPU" if gpus else f"{cpus} cores"
            raise EngineError(f"no node has {what}; pass fewer cpus=, or the address of a cluster that has such nodes")
        if not fits:
            self.watcher.noted("waiting", cpus=cpus, gpus=gpus)
        return min(self.engine.workers or max(fits, 1), len(self.job.missing))

    def _answers(self, setup: bytes, workers: int) -> Generator[pa.Table, None, None]:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy, from_items

        rows, where = self._rows()
        self.watcher.noted("reading", files=isinstance(rows, RowFiles), workers=workers)
        spans = ((shard, self.job.shards.span(shard)) for shard in self.job.missing)
        places = [{"shard": shard, "start": span.start, "stop": span.stop} for shard, span in spans]
        read = from_items(places, override_num_blocks=len(places)).map_batches(
            partial(read_rows, source=self.ray.put(rows)),
            batch_size=1,
            batch_format="pyarrow",
            # Actors may hold every core, and wait for these.
            num_cpus=0,
            compute=TaskPoolStrategy(workers),
            label_selector=where,
        )
        scored = read.map_batches(
            ShardActor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(setup, self._board),
            num_cpus=self.engine.cpus,
            num_gpus=self._gpus,
            compute=ActorPoolStrategy(
                min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=AHEAD
            ),
        )
        yield from scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)

    def _take(self, shard: int, message: Any) -> None:
        if isinstance(message, Failed):
            raise message.error
        if isinstance(message, Lost):
            raise _LostShardError(shard, message.tries)
        if shard in self._done:
            return
        self.job.shards.write(shard, message)
        with self._lock:
            self._done.add(shard)
            self.watcher.finished(shard, message.meter)

    def _rows(self) -> tuple[Rows, dict[str, str] | None]:
        """Where tasks read, and the label of the nodes that can; None where every one can."""
        files = self._files()
        if files is None:
            return self.job.source(), {NODE: self._node}
        if all(file.path.startswith("hf://") for file in files.files):
            return files, None
        # A node that joins later may not see the files, so none but those that were asked read them.
        return files, {NODE: f"in({','.join(self._nodes_that_see(files))})"}

    def _files(self) -> RowFiles | None:
        """The dataset's own files, where they hold what it does in parts that can be read by themselves."""
        if not self.job.files:
            return None
        source, shards = self.job.source(), self.job.shards
        last = shards.rows - 1
        try:
            files = RowFiles.open(self.job.files, source.dataset.features)
            if len(files) <= last or files.longest_group > LONGEST_GROUP * shards.shard_rows:
                return None
            ends = [range(1), range(last, last + 1)]
            same = all(files.read(span).equals(source.read(span)) for span in ends)
        except Exception:  # noqa: BLE001 - whatever is wrong with the files, the rows that were loaded are right
            return None
        return files if same else None

    def _nodes_that_see(self, files: RowFiles) -> list[str]:
        """This node, and those that say in time that they see the files as it does."""
        probe = self.ray.remote(num_cpus=0, max_retries=0)(sees)
        others = [node["NodeID"] for node in self.ray.nodes() if node["Alive"] and node["NodeID"] != self._node]
        if not others:
            return [self._node]
        asked = {probe.options(label_selector={NODE: node}).remote(files): node for node in others}
        answers, late = self.ray.wait(list(asked), num_returns=len(asked), timeout=SEEN_WITHIN)
        for answer in late:
            self.ray.cancel(answer)
        return [self._node, *(asked[answer] for answer in answers if self._is_yes(answer))]

    def _is_yes(self, answer: Any) -> bool:
        try:
            return bool(self.ray.get(answer))
        except self.ray.exceptions.RayError:
            return False

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep the bars and lines of Ray Data back: the watcher is told."""
        from ray.data import DataContext

        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        logger = logging.getLogger("ray.data")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            with DataContext.current(context):
                yield
        finally:
            logger.setLevel(level)

    def _poll(self) -> None:
        """Tell the watcher what the board knows, as long as the run goes on."""
        while not self._over.wait(POLLED_EVERY):
            with suppress(self.ray.exceptions.RayError):
                self._look()

    def _look(self) -> None:
        begun, moved = self.ray.get(self._board.news.remote())
        with self._lock:
            for shard, tries in begun.items():
                if tries > max(self._tried.get(shard, 0), 1):
                    self.watcher.noted("retry", shard=shard, why="its worker was lost", tries=tries - 1)
            self._tried = begun
            for shard, (rows, tokens) in moved.items():
                if shard not in self._done:
                    self.watcher.moved(shard, rows, tokens)

    def _find_row(self, shard: int, setup: bytes) -> int | None:
        span = self.job.shards.span(shard)
        rows = self.job.source()
        attempt = self.ray.remote(num_cpus=self.engine.cpus, num_gpus=self._gpus, max_retries=0)(survive)

        def kills(low: int, high: int) -> bool:
            task = read_task(rows, shard, range(span.start + low, span.start + high))
            try:
                self.ray.get(attempt.remote(setup, task))
            except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError):
                return True
            except self.ray.exceptions.RayError:
                return False
            return False

        found = first_killer(len(span), kills)
        return None if found is None else span.start + found
