"""How far a run is: a bar for people, one JSON line per event for machines.

Events, each with ``event``, ``time`` (UTC) and ``seconds`` since the run began:

- ``start``: ``rows``, ``shards``, ``resumed_shards``.
- ``shard``: a shard is finished; ``shard``, ``rows_done``, ``rows``, ``rows_per_second`` and ``tokens_per_second`` of
  this attempt so far, ``seconds_left``, ``share`` (part of the work → its share of the time).
- ``reading``: Ray begins; ``files`` (whether its tasks read the dataset's own files, else what the driver mapped) and
  ``workers``.
- ``waiting``: no node of the Ray cluster can hold a worker of so many ``cpus`` and ``gpus``, until one joins that can.
- ``retry``: a worker died; ``shard``, ``why``, ``tries``.
- ``part``: a later part of the work ended: ``part`` and what it ``took``.
- ``end``: every row is scored; ``rows``, ``rows_per_second``.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from datasets import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled
from tqdm.auto import tqdm

from im_datasets.common.storage import output_errors
from im_datasets.scoring.shards import ShardMeter, Shards


class Progress:
    """Follows a run, in the process that runs its engine.

    Args:
        shards: Of the run.
        missing: How many rows are still to be scored.
        show: Whether a bar is drawn on standard error.
        log: Gets a JSON line per event; None keeps none.
    """

    def __init__(self, shards: Shards, missing: int, show: bool, log: IO[str] | None) -> None:
        self._shards, self._log = shards, log
        self._begin = time.perf_counter()
        self._resumed = shards.rows - missing
        self._rows = self._tokens = 0
        self._moving: dict[int, tuple[int, int]] = {}
        self._seconds: dict[str, float] = {}
        self._bar: Any = tqdm(
            total=shards.rows, initial=self._resumed, desc="Scoring", unit=" rows", disable=not show, smoothing=0.1
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._begin

    @property
    def rates(self) -> dict[str, float]:
        """Rows scored, and tokens that went through models, per second in this attempt so far."""
        rows, tokens = (count / max(self.elapsed, 1e-9) for count in (self._rows, self._tokens))
        return {"rows_per_second": round(rows, 2), "tokens_per_second": round(tokens, 1)}

    def moved(self, shard: int, rows: int, tokens: int) -> None:
        """Move the bar, by whole rows and never backwards.

        Args:
            shard: One that is being computed.
            rows: How many of its rows are done.
            tokens: How many of its tokens went through models.
        """
        self._moving[shard] = rows, tokens
        self._draw()

    def finished(self, shard: int, meter: ShardMeter) -> None:
        """Count a shard that is in its place, and log it."""
        self._moving.pop(shard, None)
        self._rows += len(self._shards.span(shard))
        self._tokens += meter.tokens
        for name, part in meter.parts.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + part.seconds
        self._draw()
        left, total = self._shards.rows - self._resumed - self._rows, sum(self._seconds.values())
        self.noted(
            "shard",
            shard=shard,
            rows_done=self._resumed + self._rows,
            rows=self._shards.rows,
            **self.rates,
            seconds_left=round(left * self.elapsed / max(self._rows, 1), 1),
            share={name: round(spent / total, 4) for name, spent in self._seconds.items()} if total else {},
        )

    def noted(self, event: str, **facts: Any) -> None:
        """Write an event to the log, such as the death of a worker."""
        if self._log is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = {"event": event, "time": now, "seconds": round(self.elapsed, 3), **facts}
            self._log.write(json.dumps(line) + "\n")
            # Whoever follows the log sees each event when it happens.
            self._log.flush()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _draw(self) -> None:
        rows = self._rows + sum(rows for rows, _ in self._moving.values())
        tokens = self._tokens + sum(tokens for _, tokens in self._moving.values())
        if tokens:
            self._bar.set_postfix_str(f"{tokens / max(self.elapsed, 1e-9):,.0f} tokens/s", refresh=False)
        # A shard begins anew when its worker died.
        self._bar.update(max(0, self._resumed + rows - self._bar.n))


@contextmanager
def followed(
    shards: Shards, missing: Sequence[int], show: bool, log: str | Path | IO[str] | None
) -> Iterator[Progress]:
    """Progress through a run's missing shards, its first event logged.

    Raises:
        OutputError: The log cannot be opened.
    """
    left = sum(len(shards.span(shard)) for shard in missing)
    with opened_log(log) as file, closing(Progress(shards, left, show, file)) as progress:
        progress.noted("start", rows=shards.rows, shards=len(shards), resumed_shards=len(shards) - len(missing))
        yield progress


@contextmanager
def opened_log(log: str | Path | IO[str] | None) -> Iterator[IO[str] | None]:
    """Where log lines go: a stream, a file that is added to, or standard error for ``-``.

    Raises:
        OutputError: The file cannot be opened.
    """
    if not isinstance(log, str | Path):
        yield log
    elif str(log) == "-":
        yield sys.stderr
    else:
        with ExitStack() as stack:
            # Only the opening: what fails inside the block is no matter of the log.
            with output_errors(f"the log {log}", "pass another file"):
                file = stack.enter_context(Path(log).open("a", encoding="utf-8"))
            yield file


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Hide the bars of `datasets` for a while, unless they are wanted; never show what the user switched off."""
    hide = not shown and is_progress_bar_enabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
