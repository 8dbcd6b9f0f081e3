"""What is asked of a run: which rows are scored by what, and how it goes about its work.

Loads nothing heavy, so that the command line can make its options from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from im_datasets.data.request import SourceRequest

if TYPE_CHECKING:
    from im_datasets.data.columns import Columns
    from im_datasets.indicators.base import Indicator
    from im_datasets.rules.linear import LinearRule
    from im_datasets.scoring.engines.base import ShardEngine


@dataclass(frozen=True)
class ScoringRequest:
    """Which rows to score, and by what: all that a score depends on.

    Attributes:
        source: The rows to read.
        rule: A shipped rule's name, the path of a rule's JSON, or a LinearRule.
        indicators: Indicators with settings of your own, taken instead of the rule's default ones.
        columns: Where instruction and response stand; None finds them by the names of the columns.
        every_turn: Whether each assistant turn is a row of its own; else only the last one is scored.
    """

    source: SourceRequest
    rule: "LinearRule | str | Path" = "embedded"
    indicators: "Sequence[Indicator]" = ()
    columns: "Columns | None" = None
    every_turn: bool = False


@dataclass(frozen=True)
class RunRequest:
    """How a run goes about its work; nothing of it changes a value.

    Attributes:
        overwrite: Whether an older result may be replaced.
        command: The command line that repeats the run, for record and card.
        progress: Whether progress is shown on standard error.
        cache: Whether model outputs are kept in the store between runs, and taken from it.
        resume: Whether unfinished work of the same request is gone on with; else it is thrown away.
        workers: Processes that score side by side on this machine; each loads the models, and takes a GPU of its own
            where there are several.
        engine: Who computes the shards, instead of ``workers`` on this machine.
        log: A file (or ``"-"``, standard error) that gets a JSON line per event; see ``progress``.
    """

    overwrite: bool = False
    command: Sequence[str] | None = None
    progress: bool = True
    cache: bool = True
    resume: bool = True
    workers: int = 1
    engine: "ShardEngine | None" = None
    log: str | Path | IO[str] | None = None
