"""A freshly rendered card → the card that is already there, brought up to date.

Only the generated parts change: the text between the markers, and the fields of the front matter that this
package writes. Everything else stays as somebody wrote it, to the byte; where that cannot be, nothing is merged.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from im_datasets.common.errors import ConflictError, UntrustedError
from im_datasets.common.untrusted import parse_yaml
from im_datasets.report.card import Card
from im_datasets.report.card_blocks import MARKER, as_block, block_digests, find_blocks, replace_blocks
from im_datasets.report.card_metadata import as_yaml

_FENCE = re.compile(r"\A---[ \t]*\n(?P<front>.*?)^---[ \t]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"""^(?P<key>"[^"]*"\s*|'[^']*'\s*|[^\s#'"\-\[{%&*!|>@`?][^:\n]*):(?=\s|$)""")
_SOURCES = "source_datasets"
_UNITED = ("tags", _SOURCES, "task_categories")
"""Fields that are lists of names: ours are put behind those that are there."""

LICENCE = ("license", "license_name", "license_link")
"""Fields that hold together: what the card says of one licence is wrong of another."""


def merge_card(
    existing: str,
    fresh: Card,
    *,
    published: Mapping[str, str] | None = None,
    claimed: Mapping[str, Any] | None = None,
    configs: Collection[str] = (),
    overwrite: bool = False,
) -> str:
    """Bring a card up to date.

    Args:
        existing: The card that is there.
        fresh: The card as it would be in an empty repository.
        published: Name → sha256 of the generated parts as they were last pushed; None = never.
        claimed: Front matter as it was last pushed; its sources that ``fresh`` has no more are taken out. None = never.
        configs: Configs of an earlier push; those that ``fresh`` has no more are taken out.
        overwrite: Whether changes by hand between the markers, and a default config of somebody else, may go.

    Returns:
        The new card; the existing one where nothing has changed.

    Raises:
        ConflictError: The front matter is not a YAML mapping, a marker lacks its other half, a generated part was
            edited by hand, another config is the default, or one is in another format.
    """
    if "\r\n" in existing:
        # Fences, markers and digests know plain line ends.
        text = existing.replace("\r\n", "\n")
        merged = merge_card(text, fresh, published=published, claimed=claimed, configs=configs, overwrite=overwrite)
        return merged.replace("\n", "\r\n")
    front, body = split_card(existing)
    old = read_front_matter(front)
    _check_markers(body)
    if not overwrite:
        _check_edits(find_blocks(body), published or {})
        _check_configs(old, fresh.metadata, configs)
    kept = _without_stale(old, fresh.metadata, claimed or {})
    metadata = _merge_metadata(kept, fresh.metadata, configs)
    return f"---\n{_merge_front_matter(front, old, kept, metadata)}---\n{_merge_body(body, fresh)}"


def split_card(card: str) -> tuple[str, str]:
    """Front matter without its fences, ending in a line break, and body; an empty front matter where none is."""
    match = _FENCE.match(card)
    return (match["front"], card[match.end() :]) if match else ("", "\n" + card.lstrip("\n"))


def read_front_matter(front: str, file: str = "the front matter of the repository's README.md") -> dict[str, Any]:
    """The front matter as data.

    Args:
        front: YAML.
        file: What it is, for the error.

    Raises:
        ConflictError: It is not a YAML mapping.
    """
    try:
        data = parse_yaml(front, file)
    except UntrustedError as error:
        raise ConflictError(f"{error}; mend it") from error
    if not isinstance(data, dict | None):
        raise ConflictError(f"{file} is no mapping of names to values; mend it")
    return data or {}


def _check_markers(body: str) -> None:
    """Refuse a card whose markers do not come in pairs, each name once."""
    markers = [match.groups() for match in MARKER.finditer(body)]
    names = [name for kind, name in markers if kind == "begin"]
    if markers != [(kind, name) for name in names for kind in ("begin", "end")] or len(set(names)) < len(names):
        raise ConflictError(
            "the im-datasets markers in the repository's README.md are damaged: each begin needs its end after it, "
            "once; mend them, or remove all of them to have the generated parts put at the end"
        )


def _check_edits(blocks: Mapping[str, str], published: Mapping[str, str]) -> None:
    """Refuse to replace a generated part that is not as it was last pushed."""
    if edited := [name for name, digest in block_digests(blocks).items() if published.get(name, digest) != digest]:
        raise ConflictError(
            f"between the im-datasets markers of README.md, {', '.join(edited)} was edited by hand; move the edit "
            "outside the markers, or pass overwrite=True (--overwrite) to lose it"
        )


def _check_configs(old: Mapping[str, Any], new: Mapping[str, Any], configs: Collection[str]) -> None:
    """Refuse to sit beside configs of others by which load_dataset would not give ours, or ours would spoil them."""
    for config in _others(old.get("configs"), new.get("configs", []), configs):
        if config.get("default"):
            raise ConflictError(
                f"README.md names {str(config.get('config_name'))!r} as the default config, so load_dataset would not "
                "give the kept rows; push to a repository of its own, or pass overwrite=True (--overwrite) to make the "
                "selection the default"
            )
        # `datasets` reads all configs in the format of the default one. A folder or a pattern tells no format.
        paths = [path for path in _paths(config.get("data_files")) if re.search(r"\.\w+$", path)]
        if foreign := [path for path in paths if not path.endswith(".parquet")]:
            raise ConflictError(
                f"the config {config.get('config_name')!r} reads {foreign[0]}, and datasets would take it for Parquet "
                "like the selection; push to a repository of its own, or pass overwrite=True (--overwrite)"
            )


def _paths(data_files: Any) -> list[str]:
    """Every path that a config names, however it names them."""
    if isinstance(data_files, str):
        return [data_files]
    if isinstance(data_files, dict):
        return _paths(data_files.get("path"))
    return [path for entry in data_files or () for path in _paths(entry)]


def _merge_metadata(old: Mapping[str, Any], new: Mapping[str, Any], configs: Collection[str]) -> dict[str, Any]:
    """The new values of the generated fields, with what others wrote into them."""
    merged = dict(new)
    for name in _UNITED:
        if name in new and (values := old.get(name)):
            values = values if isinstance(values, list) else [values]
            merged[name] = values + [value for value in new[name] if value not in values]
    if "configs" in new:
        others = _others(old.get("configs"), new["configs"], configs)
        plain = [{name: value for name, value in config.items() if name != "default"} for config in others]
        merged["configs"] = [*new["configs"], *plain]
    if "dataset_info" in new:
        infos = _dicts(new["dataset_info"])
        infos += _others(old.get("dataset_info"), infos, configs)
        merged["dataset_info"] = infos if len(infos) > 1 else infos[0]
    return merged


def _without_stale(old: Mapping[str, Any], new: Mapping[str, Any], claimed: Mapping[str, Any]) -> dict[str, Any]:
    """The front matter without terms of another licence and sources of an earlier push that are none now."""
    terms = {name for name in LICENCE if name not in new} if "license" in new else set()
    kept = {name: value for name, value in old.items() if name not in terms}
    if isinstance(sources := kept.pop(_SOURCES, None), list):
        stale = [value for value in claimed.get(_SOURCES) or () if value not in (new.get(_SOURCES) or ())]
        sources = [value for value in sources if value not in stale]
    return kept | ({_SOURCES: sources} if sources else {})


def _dicts(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, dict)]


def _others(old: Any, new: list[dict[str, Any]], configs: Collection[str]) -> list[dict[str, Any]]:
    """The entries of configs that are not ours."""
    ours = {*configs, *(entry["config_name"] for entry in new)}
    return [entry for entry in _dicts(old) if entry.get("config_name", "default") not in ours]


def _merge_front_matter(front: str, old: Mapping[str, Any], kept: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The YAML with the changed fields exchanged or taken out, and the lines of all others as they stand."""
    merged = {**kept, **new}
    changed = {name: value for name, value in merged.items() if name not in old or old[name] != value}
    gone = [name for name in old if name not in merged]
    if not changed and not gone:
        return front
    segments = _segments(front)
    for name, value in changed.items():
        segments[name] = as_yaml({name: value}) + "\n"
    text = "".join(lines for name, lines in segments.items() if name not in gone)
    # Lines are told apart by their look: a key in quotes of its own, or in a text of several lines, may mislead.
    try:
        is_right = parse_yaml(text, "the merged front matter") == merged
    except UntrustedError:
        is_right = False
    return text if is_right else as_yaml(merged) + "\n"


def _segments(front: str) -> dict[str, str]:
    """Top-level field → its lines, comments after it included; what comes first is under the empty name."""
    segments, name = {"": ""}, ""
    for line in front.splitlines(keepends=True):
        if match := _KEY.match(line):
            name = match["key"].strip().strip("\"'")
        segments[name] = segments.get(name, "") + line
    return segments


def _merge_body(body: str, fresh: Card) -> str:
    """The text with fresh generated parts; one that is not there yet follows the one before it, else the end."""
    blocks = find_blocks(body)
    if not blocks and not body.strip():
        return "\n" + fresh.body
    body, before = replace_blocks(body, fresh.blocks), None
    for name, text in fresh.blocks.items():
        if name not in blocks:
            anchor = as_block(before, fresh.blocks[before]) if before else ""
            end = body.index(anchor) + len(anchor) if before else len(body.rstrip("\n"))
            body = f"{body[:end]}\n\n{as_block(name, text)}{body[end:] or chr(10)}"
        before = name
    return body
