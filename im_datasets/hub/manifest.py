"""``instructmining.json``: what a published selection claims, so that every claim can be checked.

Holds the ScoringRecord, what was asked and given, and the sha256 of every published file and of every generated
part of the card. Plain data with a versioned schema.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import file_digest, sha1, sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

from im_datasets.common.errors import HubError
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord

MANIFEST = "instructmining.json"
MANIFEST_SCHEMA = 1

SMALL_BYTES = 10 * 2**20
"""Files up to this size may lie in git itself."""

_PLACES = {"id", "files", "model", "tokenizer"}
"""Fields of a record that may hold a path; others may hold what only looks like one, such as a column's name."""

_OPTION = re.compile(r"(--[\w-]+=)(.+)", re.DOTALL)


@dataclass(frozen=True)
class Published:
    """A file of a publication.

    Attributes:
        sha256: Of its content, 64 hexadecimal digits.
        size: In bytes.
        git_sha1: Its name as a git blob, by which git knows a small file; None for a big one.
    """

    sha256: str
    size: int
    git_sha1: str | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Describe a content."""
        blob = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return cls(sha256(content).hexdigest(), len(content), blob)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Describe a file; a big one is read in pieces."""
        size = path.stat().st_size
        if size <= SMALL_BYTES:
            return cls.of(path.read_bytes())
        with path.open("rb") as file:
            return cls(file_digest(file, "sha256").hexdigest(), size)


@dataclass(frozen=True)
class Config:
    """A config of the dataset.

    Attributes:
        rows: How many.
        columns: Their names, in order.
        files: Its Parquet shards, in order.
    """

    rows: int
    columns: list[str]
    files: list[str]


@dataclass(frozen=True)
class Manifest:
    """What a publication claims.

    Attributes:
        package_version: Version of im-datasets that wrote it.
        repo_id: Where it was pushed.
        selection: What was asked of the selection and what it gave.
        record: The ScoringRecord; None where it was not known.
        columns: ``all``, or ``original`` where kept and dropped rows hold no column of im-datasets.
        configs: Config name → rows, columns and files; the first is the default.
        files: Path → sha256 and size, of every file but the card and this one.
        card: ``facts`` that went into the card, ``blocks`` (name → sha256 of the text between its markers) and
            ``metadata`` (the generated part of its front matter).
        schema_version: Version of this layout.
    """

    package_version: str
    repo_id: str
    selection: dict[str, Any]
    record: ScoringRecord | None
    columns: str
    configs: dict[str, Config]
    files: dict[str, Published]
    card: dict[str, Any] = field(default_factory=dict)
    schema_version: int = MANIFEST_SCHEMA

    def to_json(self) -> str:
        """The manifest as indented JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A manifest from its JSON text.

        Raises:
            HubError: It is no manifest, or of a schema version that is not known here.
        """
        try:
            data = json.loads(text)
            version = data["schema_version"]
            if version != MANIFEST_SCHEMA:
                raise HubError(f"{MANIFEST} has schema version {version}; known: {MANIFEST_SCHEMA}; update im-datasets")
            if not all(isinstance(data[name], dict) for name in ("selection", "configs", "files", "card")):
                raise TypeError("selection, configs, files and card must be mappings")
            data["configs"] = {name: Config(**config) for name, config in data["configs"].items()}
            data["files"] = {path: Published(**file) for path, file in data["files"].items()}
            data["record"] = data["record"] and _read_record(data["record"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(f"{MANIFEST} is not one of im-datasets: {error}") from error


def _read_record(data: dict[str, Any]) -> ScoringRecord:
    indicators = [IndicatorRecord(**indicator) for indicator in data.pop("indicators")]
    return ScoringRecord(indicators=indicators, **data)


def without_paths(record: ScoringRecord) -> ScoringRecord:
    """The record with every absolute path of this machine cut to its last part, where a path may stand.

    Args:
        record: As a run wrote it; source, models and tokenizers may have come from local folders, those that its rule
            states too; the digests beside them stay.
    """
    data = record.to_dict()
    rule = data["rule"]
    rule = {**rule, **{name: _cut_places(rule[name]) for name in ("provenance", "indicators") if name in rule}}
    command = data["command"] and [cut_word(word) for word in data["command"]]
    more = {name: _cut_places(data[name]) for name in ("source", "indicators")}
    return _read_record({**data, **more, "rule": rule, "command": command})


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
