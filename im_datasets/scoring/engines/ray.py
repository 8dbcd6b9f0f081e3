"""Shards computed on a Ray cluster, by Ray Data: tasks read rows, a pool of actors scores them, the driver writes.

Rows come from the dataset's own Parquet files where every node sees them (on the Hub, in a shared folder), else from
the driver's node. Finished shards go through Ray's object store to the driver, which writes them as any engine does, so
that workers need no folder in common. They come back in any order; a shard is known by its number.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Self

import dill
import pyarrow as pa
from typing_extensions import override

from im_datasets.common.errors import EngineError, message_of
from im_datasets.scoring.culprit import died_over
from im_datasets.scoring.engines.base import AHEAD, TRIES, Job, ShardEngine, store_folder
from im_datasets.scoring.engines.parquet_rows import RowFiles
from im_datasets.scoring.engines.ray_cluster import connected, fitting, import_ray, refuse_client
from im_datasets.scoring.engines.ray_worker import (
    ActorSetup,
    Board,
    Lost,
    RowSource,
    ShardActor,
    read_rows,
    read_task,
    surroundings,
    survive,
    unpacked,
)
from im_datasets.scoring.engines.worker import Failed
from im_datasets.scoring.progress import Progress

NODE = "ray.io/node-id"
"""The label that Ray gives each node."""

POLLED_EVERY = 0.5
"""Seconds between two looks at the board."""

SEEN_WITHIN = 60
"""Seconds that nodes have to say whether they see the files; those that have not are sent rows."""

LONGEST_GROUP = 4
"""Shards that a row group may be long where tasks read files: each of them fetches the whole group."""


@dataclass(frozen=True)
class RayEngine(ShardEngine):
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
        refuse_client(self.address or "")
        import_ray()

    @override
    def run(self, job: Job, progress: Progress) -> None:
        if job.missing:
            with connected(self.address) as is_own, _Run(self, job, progress, is_own).polled() as run:
                run.compute()


@dataclass
class _Run:
    """A job on the cluster."""

    engine: RayEngine
    job: Job
    progress: Progress
    is_own: bool
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _done: set[int] = field(default_factory=set)
    _tried: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def polled(self) -> Iterator[Self]:
        """The run with its board, which is read beside the work as long as the block lasts."""
        self.ray = import_ray()
        self._node: str = self.ray.get_runtime_context().get_node_id()
        self._board = self.ray.remote(num_cpus=0, label_selector={NODE: self._node})(Board).remote()
        self._surroundings = surroundings(self.job.scorer)
        self._gpus = int(any(str(model["device"]).startswith("cuda") for model in self._surroundings["models"]))
        over = threading.Event()
        poller = threading.Thread(target=self._poll, args=(over,), daemon=True)
        poller.start()
        try:
            yield self
        finally:
            over.set()
            poller.join()
            self.ray.kill(self._board)

    def compute(self) -> None:
        """Have all shards computed, and write each as it comes."""
        workers = self._workers()
        cpus, folder = self.engine.cpus, store_folder()
        setup = ActorSetup(self.job.scorer, TRIES, workers, cpus, self._surroundings, self._node, folder)
        pickled: bytes = dill.dumps(setup, recurse=True)
        try:
            lost = self._write_all(pickled, workers)
            self._look()
        except self.ray.exceptions.RayError as error:
            what = message_of(error, 500)
            raise EngineError(
                f"Ray gave up ({type(error).__name__}: {what}); run the same again: finished shards are kept"
            ) from error
        if lost:
            shard, tries = lost
            raise died_over(tries, self.job.shards.span(shard), partial(self._kills, shard, pickled), "Ray lost them")

    def _write_all(self, setup: bytes, workers: int) -> tuple[int, int] | None:
        """Write shards until all are there, or one has lost too many actors: which, and how many."""
        # Closed at once when an error ends it, so that its actors free their cores.
        with self._quiet(), closing(self._answers(setup, workers)) as stream:
            for shard, message in chain.from_iterable(map(unpacked, stream)):
                if isinstance(message, Failed):
                    raise message.error
                if isinstance(message, Lost):
                    return shard, message.tries
                # Ray computes a shard again whose result was lost with its node.
                if shard not in self._done:
                    self.job.shards.write(shard, message)
                    with self._lock:
                        self._done.add(shard)
                        self.progress.finished(shard, message.meter)
        return None

    def _workers(self) -> int:
        """How many actors there shall be.

        Raises:
            EngineError: No node can hold one, and none will come.
        """
        cpus, gpus = self.engine.cpus, self._gpus
        fits = fitting(self.ray.nodes(), cpus, gpus)
        if not fits and self.is_own:
            what = f"{cpus} cores and a GPU" if gpus else f"{cpus} cores"
            raise EngineError(f"no node has {what}; pass fewer cpus=, or the address of a cluster that has such nodes")
        if not fits:
            self.progress.noted("waiting", cpus=cpus, gpus=gpus)
        return min(self.engine.workers or max(fits, 1), len(self.job.missing))

    def _answers(self, setup: bytes, workers: int) -> Generator[pa.Table, None, None]:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy, from_items

        rows, where = self._rows()
        self.progress.noted("reading", files=isinstance(rows, RowFiles), workers=workers)
        spans = ((shard, self.job.shards.span(shard)) for shard in self.job.missing)
        items = [{"shard": shard, "start": span.start, "stop": span.stop} for shard, span in spans]
        # A block each, so that an actor takes one shard after another.
        read = from_items(items, override_num_blocks=len(items)).map_batches(
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

    def _rows(self) -> tuple[RowSource, dict[str, str] | None]:
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
        probe = self.ray.remote(num_cpus=0, max_retries=0)(RowFiles.are_here)
        others = [node["NodeID"] for node in self.ray.nodes() if node["Alive"] and node["NodeID"] != self._node]
        if not others:
            return [self._node]
        nodes = {probe.options(label_selector={NODE: node}).remote(files): node for node in others}
        answers, late = self.ray.wait(list(nodes), num_returns=len(nodes), timeout=SEEN_WITHIN)
        for answer in late:
            self.ray.cancel(answer)
        seeing = [self._node]
        for answer in answers:
            with suppress(self.ray.exceptions.RayError):
                seeing += [nodes[answer]] if self.ray.get(answer) else []
        return seeing

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep the bars and lines of Ray Data back: ``Progress`` has its own."""
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

    def _poll(self, over: threading.Event) -> None:
        """Pass on what the board knows, until the work is over."""
        while not over.wait(POLLED_EVERY):
            with suppress(self.ray.exceptions.RayError):
                self._look()

    def _look(self) -> None:
        begun, moved = self.ray.get(self._board.news.remote())
        with self._lock:
            for shard, tries in begun.items():
                if tries > max(self._tried.get(shard, 0), 1):
                    self.progress.noted("retry", shard=shard, why="its worker was lost", tries=tries - 1)
            self._tried = begun
            for shard, (rows, tokens) in moved.items():
                if shard not in self._done:
                    self.progress.moved(shard, rows, tokens)

    def _kills(self, shard: int, setup: bytes, span: range) -> bool:
        """Whether a worker of its own dies over these rows of a shard."""
        attempt = self.ray.remote(num_cpus=self.engine.cpus, num_gpus=self._gpus, max_retries=0)(survive)
        try:
            self.ray.get(attempt.remote(setup, read_task(self.job.source(), shard, span)))
        except self.ray.exceptions.RayError as error:
            deaths = self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError
            return isinstance(error, deaths)
        return False
