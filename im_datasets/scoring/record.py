"""The ScoringRecord: the truth behind every summary, report and card.

Plain data, written as ``record.json``. Whatever a card says about a run is read from here, so that a stranger
can compare the two.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self, TypedDict

from im_datasets.common.errors import ColumnsError, OutputError, RuleError, message_of
from im_datasets.common.plain_types import check_fields
from im_datasets.common.untrusted import MESSAGE, parse_json, read_bytes, shown
from im_datasets.data.columns import Columns
from im_datasets.rules.linear import LinearRule

SCHEMA_VERSION = 1

RECORD = "record.json"
"""The record's file in a folder of results."""


@dataclass(frozen=True)
class IndicatorRecord:
    """One indicator's part in a run.

    Attributes:
        name: The indicator's class name.
        version: Its version; part of the cache key.
        writes: The columns it wrote.
        settings: Its settings as plain data.
        model: Model id, revision (commit sha or file digest), dtype and device; None where there is no model.
        unscored: Scorable rows that this indicator could not score.
        truncated: Rows of which a text was cut to the model's length.
        reused: Model inputs whose values were in the store already.
        tokens: Real tokens that went through its model.
        seconds: Wall time spent in it, divided by the number of workers where several ran side by side.
        share: The same as a share of the time of all parts, 0 to 1.
        search: How an indicator that compares rows found their neighbours: the method, and of an approximate one the
            measured recall and the parameters; None for any other.
    """

    name: str
    version: str
    writes: list[str]
    settings: dict[str, Any]
    model: dict[str, Any] | None = None
    unscored: int = 0
    truncated: int = 0
    reused: int = 0
    tokens: int = 0
    seconds: float = 0.0
    share: float = 0.0
    search: dict[str, Any] | None = None


@dataclass(frozen=True)
class ScoringRecord:
    """What was scored, by which rule, with what, and what came of it.

    Attributes:
        package_version: Version of im-datasets.
        created: UTC time of the end of the run, ISO 8601.
        source: ``kind``, ``id``, ``config``, ``split``, ``revision``, ``fingerprint``, ``files``.
        columns: Where instruction and response stood.
        rule: The whole rule.
        indicators: One record per indicator.
        rows: Rows read.
        unscorable: Reason → rows that could not be scored for it.
        statistics: Column → {"mean", "std", "min", "median", "max", "count"} over scored rows.
        selection: What was asked of the selection and what it gave; None before a selection.
        request: Digest of all that was asked, the source's contents included; equal requests give equal results.
        command: The command line that repeats the run, both steps of it where there were two; None when one of them was
            called from Python.
        versions: Library → version.
        seconds: Part of the run → wall seconds, divided by the number of workers where several ran side by side;
            shards that an earlier, interrupted attempt finished are included.
        peak_memory_bytes: Peak resident memory of the process, mapped files included.
        throughput: ``rows_per_second`` and ``tokens_per_second`` of the shards computed in the last attempt,
            ``resumed_shards`` that it found finished, ``shards`` and ``workers``.
        engines: Engine → how many shards it computed.
        schema_version: Version of this layout.
    """

    package_version: str
    created: str
    source: dict[str, Any]
    columns: Columns
    rule: LinearRule
    indicators: list[IndicatorRecord]
    rows: int
    unscorable: dict[str, int]
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    request: str | None = None
    command: list[str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    throughput: dict[str, float] = field(default_factory=dict)
    engines: dict[str, int] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data; beside the columns' fields stand the layout and the notes that follow from them."""
        return asdict(self) | {"columns": self.columns.to_dict(), "rule": self.rule.to_dict()}

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record.

        Raises:
            OutputError: No such file, or not a record of a known schema version.
        """
        try:
            return cls(**_typed(parse_json(read_bytes(path, "it"), "it", unique=True)))
        except (OSError, *_MALFORMED) as error:
            raise OutputError(f"{path} is not a scoring record: {shown(message_of(error), MESSAGE)}") from error

    def with_selection(self, selection: dict[str, Any]) -> Self:
        """The same record with what a selection asked for and gave."""
        return replace(self, selection=selection)


class _Model(TypedDict):
    id: str
    revision: str | None
    dtype: str | None
    device: str | None


class _Source(TypedDict):
    kind: str
    id: str | None
    config: str | None
    split: str | None
    revision: str | None
    fingerprint: str | None
    files: list[str]
    rows: int
    limit: int | None
    seed: int | None


class _Quota(TypedDict):
    column: str
    quota: int


class _Targets(TypedDict):
    examples: int
    sha256: str
    hub: str | None
    kind: str
    model: _Model


class _Selected(TypedDict):
    top_k: int | None
    fraction: float | None
    threshold: float | None
    per_group: _Quota | None
    near_duplicates: float | None
    embedder: _Model | None
    exclude_contaminated: int | None
    evaluation_sha256: str | None
    targets: _Targets | None
    seed: int
    shortfall: int
    kept: int
    dropped: int
    cut: float | None
    reasons: dict[str, int]


class _Fields(TypedDict):
    fields: dict[str, str]


_PLACES = {"id", "files", "model", "tokenizer"}
"""Fields of a record that may hold a path; others may hold what only looks like one, such as a column's name."""


_OPTION = re.compile(r"(--[\w-]+=)(.+)", re.DOTALL)


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, ColumnsError, RuleError)
"""What plain data that is no record runs into."""


def read_record(data: Mapping[str, Any]) -> ScoringRecord:
    """A record from its plain data, as ``ScoringRecord.to_dict`` gives it.

    Raises:
        OutputError: It is no record of a known schema version; the rule, the columns or another field is not as it
            should be.
    """
    try:
        return ScoringRecord(**_typed(data))
    except _MALFORMED as error:
        raise OutputError(f"not a scoring record: {shown(message_of(error), MESSAGE)}") from error


def check_selection(described: Any) -> None:
    """Refuse what is said of a selection where a field is not as it should be.

    Raises:
        UntrustedError: Names the field.
    """
    check_fields(described, _Selected, "the selection")


def _typed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record from its plain data."""
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"it has schema version {data['schema_version']!r}; known: {SCHEMA_VERSION}")
    inner: dict[str, Any] = {"source": _Source, "columns": _Fields, "rule": object, "indicators": list[dict[str, Any]]}
    check_fields(data, ScoringRecord, "the record", **inner)
    if data.get("selection") is not None:
        check_selection(data["selection"])
    for number, indicator in enumerate(data["indicators"], 1):
        check_fields(indicator, IndicatorRecord, f"indicator {number}", model=_Model | None)
    fields = data["columns"]["fields"]
    indicators = [IndicatorRecord(**indicator) for indicator in data["indicators"]]
    rule = LinearRule.from_dict(data["rule"])
    return {**data, "columns": Columns(**fields), "rule": rule, "indicators": indicators}


def without_paths(record: ScoringRecord) -> ScoringRecord:
    """The record with every absolute path of this machine cut to its last part, where a path may stand.

    Args:
        record: As a run wrote it; source, models and tokenizers may have come from local folders, those that its rule
            states too; the digests beside them stay.
    """
    rule = record.rule
    return replace(
        record,
        source=_cut_places(record.source),
        rule=replace(rule, provenance=_cut_places(rule.provenance), indicators=_cut_places(rule.indicators)),
        indicators=[IndicatorRecord(**_cut_places(asdict(indicator))) for indicator in record.indicators],
        command=record.command and [cut_word(word) for word in record.command],
    )


def cut_path(text: str) -> str:
    """A text that is an absolute path cut to its last part; any other as it is.

    >>> cut_path("/home/me/my model"), cut_path("file:///home/me/x"), cut_path("owner/name")
    ('my model', 'x', 'owner/name')
    """
    plain = text.removeprefix("file://")
    if re.match(r"/|~[^/]*/", plain):
        return PurePosixPath(plain).name or text
    if re.match(r"[A-Za-z]:[\\/]|\\\\", plain):
        return PureWindowsPath(plain).name or text
    return text


def cut_word(word: str) -> str:
    """A word of a command line with its path cut: the whole word, or the value of an option.

    >>> cut_word("--rule=/home/me/rule.json"), cut_word("instruction=/data/question")
    ('--rule=rule.json', 'instruction=/data/question')
    """
    option = _OPTION.fullmatch(word)
    return option[1] + cut_path(option[2]) if option else cut_path(word)


def _cut_places(value: Any, *, is_place: bool = False) -> Any:
    """Plain data with the paths in its known fields cut."""
    if isinstance(value, Mapping):
        return {name: _cut_places(inner, is_place=name in _PLACES) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cut_places(inner, is_place=is_place) for inner in value]
    return cut_path(value) if is_place and isinstance(value, str) else value


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something and is no result.

    Args:
        folder: Where a result shall be written; need not be there.
        overwrite: Whether an older result may be replaced.

    Raises:
        OutputError: It holds files and no record.
    """
    if not folder.is_dir():
        return
    if any(folder.iterdir()) and not (folder / RECORD).is_file():
        what = "--overwrite only replaces results of im-datasets; " if overwrite else ""
        raise OutputError(f"{folder} is not empty and holds no {RECORD}; {what}pass another folder")
