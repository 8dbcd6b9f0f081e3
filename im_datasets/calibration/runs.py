"""The table of finetuning runs: one JSON line a run, added by any number of processes, checked when it is read.

A line holds what a subset was (its mean indicators) and what a model finetuned on it lost (in nats per response
token). Nothing here trains, and nothing here fits.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from im_datasets.common.errors import CalibrationError, UntrustedError
from im_datasets.common.plain_types import LARGEST
from im_datasets.common.untrusted import parse_json

KINDS = ("calibration", "search", "compare")
"""What a run was made for: fitting a rule, searching the subset size, comparing selections."""


@dataclass(frozen=True)
class Run:
    """One finetuning run: a subset's mean indicators and the losses of the model that was finetuned on it.

    Attributes:
        run: Its id, unlike any other's in the table.
        means: Indicator column → mean over the subset's scored rows; NaN = no row was scored.
        losses: Name of an evaluation set → mean negative log-likelihood, nats per response token; NaN = not measured.
        kind: What it was made for, one of ``KINDS``.
        subset: What the subset was, in words or as plain data.
        seed: The seed of the draw and of the training.
        rows: Rows trained on; None = not known.
        base_model: What was finetuned: ``id`` with ``revision`` or digest.
        training: Settings of the training.
        indicators: Indicator class → settings, as a rule holds them.
        seconds: Wall time.
        finished: UTC time of the end, ISO 8601; None = not known.
        details: Anything else, such as the loss of every evaluation example.
        evaluations: Name of an evaluation set → digest of its texts; empty = not known.

    Example:
        >>> Run("a", {"im_mtld": 61.5}, {"mt-bench": 0.74}).to_json()[:52]
        '{"run": "a", "means": {"im_mtld": 61.5}, "losses": {'
    """

    run: str
    means: Mapping[str, float]
    losses: Mapping[str, float]
    kind: str = "calibration"
    subset: str | Mapping[str, Any] = ""
    seed: int = 0
    rows: int | None = None
    base_model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    indicators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is not a run.

        Raises:
            CalibrationError: A field is of the wrong kind.
        """
        for problem in _problems(self):
            raise CalibrationError(f"run {self.run!r}: {problem}")

    def to_json(self) -> str:
        """The run as one line of JSON, without its line feed; NaN is ``null``."""
        return json.dumps(asdict(self) | _numbers_of(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A run from plain data, ``null`` as NaN.

        Raises:
            CalibrationError: A field is missing, unknown or of the wrong kind.
        """
        accepted = [f.name for f in fields(cls)]
        if missing := [name for name in ("run", "means", "losses") if name not in data]:
            raise CalibrationError(f"has no {_listed(missing)}; a run needs 'run', 'means' and 'losses'")
        if unknown := [name for name in data if name not in accepted]:
            raise CalibrationError(f"has unknown fields {_listed(unknown)}; put them under 'details'")
        return cls(**{**data, "means": _with_nan(data["means"]), "losses": _with_nan(data["losses"])})


@dataclass(frozen=True)
class Runs:
    """The runs of a table, in the order they were finished.

    Attributes:
        runs: Every run, each id once.
        notes: What was left out when reading, and why; empty where nothing was.
    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> tuple[Run, ...]:
        """The runs that were made for one thing, one of ``KINDS``."""
        return tuple(run for run in self.runs if run.kind == kind)


def append_run(path: str | Path, run: Run) -> None:
    """Add a run to a table, whole or not at all, while other processes may do the same.

    Args:
        path: The table; it and its folder are made when they are missing.
        run: What to add.
    """
    from filelock import FileLock

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    line = run.to_json().encode() + b"\n"
    # Flushed to the disk before the lock is lifted: a run takes minutes or hours, and must outlast a crash.
    with FileLock(target.with_name(f".{target.name}.lock")), target.open("a+b") as table:
        _mend(table)
        table.write(line)
        table.flush()
        os.fsync(table.fileno())


def read_runs(path: str | Path) -> Runs:
    """Read a table of runs.

    A last line that a killed writer left unfinished is left out, and so is a repeat of a run with the same means
    and losses; ``notes`` says so.

    Args:
        path: A JSON Lines file, one run a line.

    Raises:
        CalibrationError: No such file; a line is not a run (file, line and field are named); an id stands for two
            different runs.
    """
    try:
        # In bytes: a killed writer may leave half a character.
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise CalibrationError(f"cannot read {path} as a table of runs: {error}") from error
    # What follows the last line feed: nothing, unless its writer was killed or did not end the line.
    torn = lines.pop()
    notes = []
    if torn.strip():
        if _is_json(torn):
            lines.append(torn)
        else:
            notes.append(f"line {len(lines) + 1} was not finished when its writer stopped, and is left out")
    runs: dict[str, Run] = {}
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        run = _parse(path, number, line)
        if run.run not in runs:
            runs[run.run], line_of[run.run] = run, number
        elif _numbers_of(run) == _numbers_of(runs[run.run]):
            notes.append(f"line {number} repeats run {run.run!r} of line {line_of[run.run]}, and is left out")
        else:
            raise CalibrationError(
                f"{path}, line {number}, field 'run': {run.run!r} is already line {line_of[run.run]}, with other "
                "numbers; give each run an id of its own, or remove one of the two lines"
            )
    return Runs(tuple(runs.values()), tuple(notes))


def _parse(path: str | Path, number: int, line: bytes) -> Run:
    try:
        data = parse_json(line, "it")
    except UntrustedError as error:
        raise CalibrationError(f"{path}, line {number}: {error}; remove or repair this line") from error
    if not isinstance(data, dict):
        raise CalibrationError(f"{path}, line {number}: a run is a JSON object, got {type(data).__name__}")
    try:
        return Run.from_dict(data)
    except CalibrationError as error:
        raise CalibrationError(f"{path}, line {number}: {error}") from error


def _mend(table: Any) -> None:
    """End an unfinished last line: cut it where its writer was killed, close it where only the line feed is missing."""
    # Append mode reads from the end and writes there, whatever was read in between.
    content_end = table.seek(0, os.SEEK_END)
    if not content_end:
        return
    table.seek(0)
    tail = table.read().rpartition(b"\n")[2]
    if tail and not _is_json(tail):
        table.truncate(content_end - len(tail))
    elif tail:
        table.write(b"\n")


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def _problems(run: Run) -> Iterable[str]:
    """What is wrong with a run, as ``field 'name': what came; what is accepted``."""
    if not isinstance(run.run, str) or not run.run:
        yield f"field 'run': got {run.run!r}; an id is a text that is not empty"
    if run.kind not in KINDS:
        yield f"field 'kind': got {run.kind!r}; one of {', '.join(KINDS)}"
    for name in ("means", "losses"):
        yield from _number_problems(name, getattr(run, name))
    # To Python, True is an int: asked for by name.
    if not isinstance(run.seed, int) or isinstance(run.seed, bool):
        yield f"field 'seed': got {run.seed!r}; a whole number"
    if run.rows is not None and (not isinstance(run.rows, int) or isinstance(run.rows, bool) or run.rows < 0):
        yield f"field 'rows': got {run.rows!r}; a whole number of rows, or null"
    if not isinstance(run.seconds, int | float) or isinstance(run.seconds, bool):
        yield f"field 'seconds': got {run.seconds!r}; a number"
    if not isinstance(run.subset, str | Mapping):
        yield f"field 'subset': got {type(run.subset).__name__}; a text or an object"
    for name in ("base_model", "training", "indicators", "details", "evaluations"):
        if not isinstance(getattr(run, name), Mapping):
            yield f"field {name!r}: got {type(getattr(run, name)).__name__}; an object"


def _number_problems(name: str, values: Any) -> Iterable[str]:
    if not isinstance(values, Mapping):
        yield f"field {name!r}: got {type(values).__name__}; an object of names and numbers"
        return
    if name == "losses" and not values:
        yield "field 'losses': empty; the loss on at least one evaluation set, by its name"
    for key, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST:
            accepted = f"a finite number up to {LARGEST:g}, or null where it could not be measured"
            yield f"field '{name}.{key}': got {value!r}; {accepted}"


def _numbers_of(run: Run) -> dict[str, dict[str, float | None]]:
    """Means and losses as JSON has them: NaN is ``null``, which equals itself."""
    return {
        field: {name: None if math.isnan(value) else value for name, value in values.items()}
        for field, values in (("means", run.means), ("losses", run.losses))
    }


def _with_nan(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {name: math.nan if value is None else value for name, value in values.items()}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
