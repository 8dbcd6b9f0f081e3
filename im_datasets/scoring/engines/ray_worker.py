"""What runs in Ray's workers: tasks read a shard's rows, actors that keep their models score them.

Between them and back to the driver travel tables of one row: a shard's number, and a message as bytes. What goes wrong
over a shard is such a message too, so that it arrives in the driver as the error it is. Only the driver writes.
"""

import os
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from im_datasets.common.errors import EngineError
from im_datasets.indicators.settings import runs_model
from im_datasets.scoring.engines.base import store_folder
from im_datasets.scoring.engines.worker import Failed, Task, portable, throttled
from im_datasets.scoring.scorer import Listener, ShardScorer, library_versions
from im_datasets.scoring.shards import ScoredShard

ENGINE = "ray"
"""How the shards' meters name who computed them."""


class RowSource(Protocol):
    """Where a task reads rows."""

    def read(self, span: range) -> pa.Table:
        """Rows by their numbers in the dataset."""


class Lost(NamedTuple):
    """A shard that this many actors were lost over."""

    tries: int


@dataclass(frozen=True)
class ActorSetup:
    """What an actor begins with.

    Attributes:
        scorer: Scores the rows of a shard.
        tries: How many actors may be lost over a shard.
        workers: How many actors there are.
        threads: How many threads each may use.
        surroundings: The driver's ``surroundings``.
        node: The driver's node.
        store: The driver's folder of computed values; actors on its node share it, others have their own. None keeps
            nothing.
    """

    scorer: ShardScorer
    tries: int
    workers: int
    threads: int
    surroundings: Mapping[str, Any]
    node: str
    store: Path | None


def surroundings(scorer: ShardScorer) -> dict[str, Any]:
    """What values depend on beside rows and settings: versions of libraries, and how each model runs."""
    models = [i.describe() for i in scorer.indicators if runs_model(i)]
    return {"versions": library_versions(), "models": [*models, *(e.describe() for e in scorer.embedders)]}


def packed(shard: int, message: object) -> pa.Table:
    """A table of one row, as it travels."""
    # Large: a shard with its vectors may pass the 2 GiB that plain binary holds.
    content = pa.array([pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)], type=pa.large_binary())
    return pa.table({"shard": pa.array([shard], type=pa.int64()), "message": content})


def unpacked(table: pa.Table) -> list[tuple[int, Any]]:
    """The shards and messages of a table."""
    messages = [pickle.loads(content.as_buffer()) for content in table["message"]]  # noqa: S301 - from our own workers
    return list(zip(table["shard"].to_pylist(), messages, strict=True))


def read_rows(batch: pa.Table, source: Any) -> pa.Table:
    """Read the rows of shards: from ``shard``, ``start`` and ``stop`` to a ``Task``, or ``Failed``, each.

    ``source`` is a reference to a ``RowSource`` in Ray's object store.
    """
    import ray

    rows: RowSource = ray.get(source)
    spans = [(row["shard"], range(row["start"], row["stop"])) for row in batch.to_pylist()]
    return pa.concat_tables(packed(shard, read_task(rows, shard, span)) for shard, span in spans)


def read_task(rows: RowSource, shard: int, span: range) -> Task | Failed:
    """A shard's rows, as they travel to the actor that scores them."""
    try:
        return Task.of(shard, span.start, rows.read(span))
    except Exception as error:  # noqa: BLE001 - it is raised again in the driver
        return Failed(portable(error))


class ShardActor:
    """Scores shards; its models stay loaded.

    Args:
        setup: An ``ActorSetup``, pickled with ``dill``.
        board: Handle of the ``Board``.
    """

    def __init__(self, setup: bytes, board: Any) -> None:
        self._pickled, self._board = setup, board

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn tasks into ``ScoredShard``, ``Failed`` or ``Lost``, one per row."""
        return pa.concat_tables(packed(shard, self._answer(message)) for shard, message in unpacked(batch))

    def _answer(self, task: Task | Failed) -> Any:
        import ray

        if isinstance(task, Failed):
            return task
        try:
            # Ray hands a shard to actor after actor without end; the board, which no shard can kill, keeps count.
            actor = ray.get_runtime_context().get_actor_id()
            before: int = ray.get(self._board.begin.remote(task.shard, actor))
            if before >= self._setup.tries:
                return Lost(before)
            scored = score_task(self._setup, task, throttled(partial(self._board.move.remote, task.shard)))
            # Asked at the end: when the first shard begins, few actors have.
            scored.meter.workers = ray.get(self._board.workers.remote())
            return scored
        except Exception as error:  # noqa: BLE001 - it is raised again in the driver
            return Failed(portable(error))

    @cached_property
    def _setup(self) -> ActorSetup:
        # Not in __init__: only what goes wrong over a shard reaches the driver as the error it is.
        return ready(self._pickled)


def ready(pickled: bytes) -> ActorSetup:
    """Make this process one that computes what the driver would.

    Raises:
        EngineError: It would compute something else.
    """
    import dill

    setup: ActorSetup = dill.loads(pickled)  # noqa: S301 - from the driver
    os.environ["RAYON_NUM_THREADS"] = str(setup.threads)
    from im_datasets.models.embedder import share_cache

    if setup.surroundings["models"]:
        import torch

        torch.set_num_threads(setup.threads)
    share_cache(max(1, min(setup.workers, (os.cpu_count() or 1) // setup.threads)))
    own = surroundings(setup.scorer)
    for what, expected in setup.surroundings.items():
        if own[what] != expected:
            raise EngineError(
                f"a worker has other {what} ({own[what]}) than the process that runs the engine ({expected}); give all "
                "nodes the same packages, and run this on one with the workers' kind of device"
            )
    return setup


def score_task(setup: ActorSetup, task: Task, listener: Listener | None = None) -> ScoredShard:
    """Score the rows of a task."""
    import ray

    from im_datasets.models.value_store import using_store

    is_shared = setup.store is None or ray.get_runtime_context().get_node_id() == setup.node
    with using_store(setup.store if is_shared else store_folder()):
        scored = setup.scorer(task.table(), task.start, listener)
    scored.meter.engine, scored.meter.version = ENGINE, ray.__version__
    return scored


def survive(pickled: bytes, task: Task) -> None:
    """Score some rows and forget the result: whether this process lives through it is what is asked."""
    score_task(ready(pickled), task)


class Board:
    """What actors say while they work; an actor itself."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._last: dict[int, str] = {}
        self._workers: set[str] = set()
        self._moved: dict[int, tuple[int, int]] = {}

    def begin(self, shard: int, actor: str) -> int:
        """An actor takes up a shard; says how many did before."""
        # Whoever had the shard before was lost over it.
        self._workers.discard(self._last.get(shard, ""))
        self._workers.add(actor)
        self._last[shard] = actor
        self._begun[shard] += 1
        return self._begun[shard] - 1

    def workers(self) -> int:
        """How many actors are at work, those that were lost left out."""
        return len(self._workers)

    def move(self, shard: int, rows: int, tokens: int) -> None:
        """So many of its rows are done, and so many tokens went through models."""
        self._moved[shard] = rows, tokens

    def news(self) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
        """How often each shard was begun, and what has moved since the last call."""
        moved, self._moved = self._moved, {}
        return dict(self._begun), moved
