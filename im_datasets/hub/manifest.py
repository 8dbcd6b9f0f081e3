"""``instructmining.json``: what a published selection claims, so that every claim can be checked.

Holds the ScoringRecord, what was asked and given, and the sha256 of every published file and of every generated
part of the card. Plain data with a versioned schema.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from im_datasets.common.errors import HubError, OutputError, message_of
from im_datasets.common.untrusted import MESSAGE, parse_json, shown
from im_datasets.report.configs import MANIFEST, Config, Published
from im_datasets.scoring.record import ScoringRecord, check_selection, read_record

MANIFEST_SCHEMA = 1


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
        data = asdict(self) | {"record": self.record and self.record.to_dict()}
        # NaN would be no JSON, which other readers refuse.
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A manifest from its JSON text, or that in UTF-8.

        Raises:
            HubError: It is no manifest, or of a schema version that is not known here.
        """
        try:
            data = parse_json(text, "it", unique=True)
            version = data["schema_version"]
            if version != MANIFEST_SCHEMA:
                raise HubError(
                    f"{MANIFEST} has schema version {shown(version)}; known: {MANIFEST_SCHEMA}; update im-datasets"
                )
            if not all(isinstance(data[name], dict) for name in ("selection", "configs", "files", "card")):
                raise TypeError("selection, configs, files and card must be mappings")
            check_selection(data["selection"])
            data["configs"] = {name: _config(config) for name, config in data["configs"].items()}
            data["files"] = {_path(path): _file(file) for path, file in data["files"].items()}
            paths = [path for config in data["configs"].values() for path in config.files]
            if len(set(paths)) < len(paths):
                raise ValueError("a file is in its configs twice")
            data["record"] = data["record"] and read_record(data["record"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, OutputError) as error:
            raise HubError(f"{MANIFEST} is not one of im-datasets: {shown(message_of(error), MESSAGE)}") from error


_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
"""A path as push writes them: no folder above, no link, no scheme, no drive, no pattern that fetches others."""


def _path(path: Any) -> str:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ValueError(f"it names the file {shown(repr(path))}, which no push writes, and it is not opened")
    return path


def _config(data: Any) -> Config:
    config = Config(**data)
    if not isinstance(config.rows, int) or not all(isinstance(names, list) for names in (config.columns, config.files)):
        raise TypeError("a config must tell its rows as a number, its columns and files as lists")
    return Config(config.rows, config.columns, [_path(path) for path in config.files])


def _file(data: Any) -> Published:
    file = Published(**data)
    if not isinstance(file.sha256, str) or not isinstance(file.size, int):
        raise TypeError("a file must tell its sha256 as a text and its size as a number")
    return file
