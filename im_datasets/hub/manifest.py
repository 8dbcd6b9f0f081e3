"""``instructmining.json``: what a published selection claims, so that every claim can be checked.

Holds the ScoringRecord, what was asked and given, and the sha256 of every published file and of every generated
part of the card. Plain data with a versioned schema.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from im_datasets.common.errors import HubError, OutputError, message_of
from im_datasets.common.untrusted import MESSAGE, parse_json, shown
from im_datasets.report.configs import MANIFEST, Config, Published
from im_datasets.scoring.record import ScoringRecord, read_record

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
            data = parse_json(text, "it")
            version = data["schema_version"]
            if version != MANIFEST_SCHEMA:
                raise HubError(
                    f"{MANIFEST} has schema version {shown(version)}; known: {MANIFEST_SCHEMA}; update im-datasets"
                )
            if not all(isinstance(data[name], dict) for name in ("selection", "configs", "files", "card")):
                raise TypeError("selection, configs, files and card must be mappings")
            data["configs"] = {name: Config(**config) for name, config in data["configs"].items()}
            data["files"] = {path: Published(**file) for path, file in data["files"].items()}
            data["record"] = data["record"] and read_record(data["record"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, OutputError) as error:
            raise HubError(f"{MANIFEST} is not one of im-datasets: {shown(message_of(error), MESSAGE)}") from error
