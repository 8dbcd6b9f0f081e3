"""Published rows against the source that the record names, as the one who verifies hands it over."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from im_datasets.common.errors import ImDatasetsError
from im_datasets.data.arrow import read_column, stored
from im_datasets.data.columns import SOURCE_ROW, TURN
from im_datasets.data.layouts import is_message_tree
from im_datasets.data.prepare import prepare
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import Source, read_source
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, values_of, verdict
from im_datasets.hub.verification.texts import BATCH
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import ROW

CLAIMED = ("record.source",)


def check_source(published: PublishedSelection, source: str | Path | None) -> Iterator[Check]:
    """Number and texts of the rows against their source; it is read only where somebody hands it over.

    Args:
        published: What is verified.
        source: A path or the id of a Hub dataset, from the one who verifies; None reads nothing.
    """
    record = published.record
    if record is None:
        return
    stated = record.source
    at = f" at {stated['revision']}" if stated.get("revision") else ""
    name = stated.get("id") or "a dataset in memory"
    what = f"that these rows are those of {name}{at}"
    if source is None:
        handed = name if stated.get("kind") == "hub" else "a copy of it"
        yield Check("source", Outcome.NOT_CHECKED, f"{what}: pass --source {handed}", CLAIMED)
        return
    try:
        sources = _read(stated, source)
        rows = [_prepared(each.dataset, record) for each in sources]
    except ImDatasetsError as error:
        yield Check("source", Outcome.NOT_CHECKED, f"{what}: {error}", CLAIMED)
        return
    mismatches = [_wrong(published, record, each, prepared) for each, prepared in zip(sources, rows, strict=True)]
    wrong = min(mismatches, key=len)
    shared = [column for column in _columns(published) if column in rows[0].column_names]
    finding = f"the rows are those of {source}, in {few(shared) if shared else 'number alone: no text was published'}"
    yield verdict("source", wrong, finding, CLAIMED)
    if media := [column for column in shared if any(_is_media(side, column) for side in published.sides.values())]:
        finding = f"{few(media)}: images, sounds or the like, which are not compared"
        yield Check("source", Outcome.NOT_CHECKED, finding)
    lacking = [column for column in _columns(published) if column not in rows[0].column_names]
    if lacking:
        yield Check("source", Outcome.NOT_CHECKED, f"{few(lacking)}: columns that the source lacks")
    if labels := _unnamed_labels(published, rows[0]):
        finding = f"the names that stand for the numbers in {few(labels)}: the source has only the numbers"
        yield Check("source", Outcome.NOT_CHECKED, finding)
    if stated.get("kind") == sources[0].info["kind"] and stated.get("files") != sources[0].info["files"]:
        listed, files = few(_listed(stated.get("files"))), few(sources[0].info["files"])
        finding = f"that its files are {listed}: {source} has {files}"
        yield Check("source", Outcome.NOT_CHECKED, finding)
    if not _is_named(stated, source):
        finding = f"that {source} is {name}{at}, which the record names: another name was handed over"
        yield Check("source", Outcome.NOT_CHECKED, finding)
    if stated.get("kind") != sources[0].info["kind"] or stated.get("kind") == "hub":
        reason = (
            f"the fingerprint {stated.get('fingerprint')}: it is of another kind, or of another version of datasets"
        )
        yield Check("source", Outcome.NOT_CHECKED, reason)


def _is_named(stated: dict[str, Any], source: str | Path) -> bool:
    """Whether what was handed over goes by the name that the record has; a path by its last part."""
    name = str(stated.get("id"))
    return str(source) == name or (stated.get("kind") != "hub" and Path(source).name == Path(name).name)


def _read(stated: dict[str, Any], source: str | Path) -> list[Source]:
    """The source as it was read; in both ways where a sample of it may have been drawn from a stream or not."""
    is_local = Path(source).expanduser().exists()
    config, revision = (None, None) if is_local else (stated.get("config"), stated.get("revision"))
    limit, seed = stated.get("limit"), stated.get("seed")
    request = SourceRequest(str(source), config, stated.get("split"), revision, limit=limit)
    sources = [read_source(request, seed)]
    if limit is not None and seed is not None:
        sources.append(read_source(replace(request, streaming=True), seed))
    return sources


def _prepared(dataset: Dataset, record: ScoringRecord) -> Dataset:
    """The rows as they were scored."""
    columns = record.columns
    if is_message_tree(dataset.column_names) and columns.mapping == {"messages": "messages"}:
        return prepare(dataset)[0]
    every_turn = columns.turn == TURN and TURN not in dataset.column_names
    return prepare(dataset, replace(columns, turn=None) if every_turn else columns, every_turn=every_turn)[0]


def _is_media(rows: Dataset, column: str) -> bool:
    return column in rows.column_names and stored(rows.features)[column] != rows.features[column]


def _columns(published: PublishedSelection) -> list[str]:
    """Published columns that are of the source."""
    names = dict.fromkeys(name for rows in published.sides.values() for name in rows.column_names)
    return [name for name in names if not name.startswith("im_")]


def _wrong(published: PublishedSelection, record: ScoringRecord, source: Source, rows: Dataset) -> list[str]:
    wrong = []
    stated = record.source
    if len(source.dataset) != stated.get("rows"):
        wrong.append(f"the source has {len(source.dataset)} rows, claimed are {stated.get('rows')}")
    if len(rows) != record.rows:
        wrong.append(f"the source makes {len(rows)} rows to score, claimed are {record.rows}")
    if stated.get("kind") != "hub" and (stated.get("config") or stated.get("revision")):
        wrong.append(f"a {stated.get('kind')} has no config and no revision, and the record names one")
    is_same_kind = stated.get("kind") == source.info["kind"] != "hub"
    if is_same_kind and source.info["fingerprint"] != stated.get("fingerprint"):
        wrong.append(
            f"the source has the fingerprint {source.info['fingerprint']}, claimed is {stated.get('fingerprint')}"
        )
    for name, side in published.sides.items():
        wrong += _wrong_labels(name, side, rows)
        if ROW in side.column_names:
            wrong += _wrong_rows(name, side, rows)
    return wrong + _wrong_without_numbers(published, rows)


def _wrong_without_numbers(published: PublishedSelection, source: Dataset) -> list[str]:
    """Rows that do not say which of the source they are, and are none of it, or stand there less often."""
    sides = {name: side for name, side in published.sides.items() if ROW not in side.column_names}
    columns = [n for n in source.column_names if all(n in _shared(side, source) for side in sides.values())]
    if not sides or not columns:
        return []
    left = Counter(_keys(source, columns))
    wrong = []
    for name, side in sides.items():
        left.subtract(keys := list(_keys(side, columns)))
        lacking = [place for place, key in enumerate(keys) if left[key] < 0]
        wrong += [f"{name}: the row in place {few(lacking)} is none of the source"] if lacking else []
    return wrong


def _shared(side: Dataset, source: Dataset) -> list[str]:
    """Columns of both that can be compared: of an image or the like push wrote the bytes, and the source has a path."""
    return [n for n in side.column_names if n in source.column_names and not _is_media(side, n)]


def _keys(rows: Dataset, columns: list[str]) -> Iterator[int]:
    """A number for the values of each row."""
    texts = rows.select_columns(columns).with_format("arrow")
    for start in range(0, len(rows), BATCH):
        yield from (hash(repr([row[name] for name in columns])) for row in texts[start : start + BATCH].to_pylist())


def _wrong_labels(name: str, side: Dataset, source: Dataset) -> list[str]:
    """Columns whose numbers stand for other names than in the source."""
    shared = [column for column in side.column_names if column in source.column_names]
    pairs = {column: (_labels(side.features[column]), _labels(source.features[column])) for column in shared}
    other = [column for column, (left, right) in pairs.items() if right and left != right]
    return [f"{name}: {few(other)} has other names for its numbers than the source"] if other else []


def _unnamed_labels(published: PublishedSelection, source: Dataset) -> list[str]:
    """Columns whose numbers stand for names, of which the source knows none."""
    features = {name: feature for side in published.sides.values() for name, feature in side.features.items()}
    return [
        name
        for name, feature in features.items()
        if name in source.column_names and _labels(feature) and not _labels(source.features[name])
    ]


def _labels(feature: Any) -> list[list[str]]:
    """The names that numbers stand for, of every list of them in a feature."""
    if isinstance(feature, ClassLabel):
        return [list(feature.names)]
    if isinstance(feature, Mapping):
        return [names for _, inner in sorted(feature.items()) for names in _labels(inner)]
    inner = feature if isinstance(feature, list) else [getattr(feature, "feature", None)]
    return [names for each in inner if each is not None for names in _labels(each)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _wrong_rows(name: str, side: Dataset, source: Dataset) -> list[str]:
    """Rows whose values are not those of their place in the source."""
    numbers = read_column(side, ROW).to_pylist()
    if ROW in source.column_names:
        place_of = {number: place for place, number in enumerate(values_of(source, ROW))}
    else:
        place_of = {place: place for place in range(len(source))}
    if unknown := [number for number in numbers if number not in place_of]:
        return [f"{name} has row {few(unknown)}, which the source has not"]
    names = [n for n in _shared(side, source) if not n.startswith("im_") or n in _PLACES]
    if not names:
        return []
    published, original = (rows.select_columns(names).with_format("arrow") for rows in (side, source))
    differing: list[int] = []
    for start in range(0, len(side), BATCH):
        some = numbers[start : start + BATCH]
        left = published[start : start + BATCH].to_pylist()
        right = original.select([place_of[number] for number in some])[:].to_pylist()
        differing += [number for number, one, other in zip(some, left, right, strict=True) if repr(one) != repr(other)]
    return [f"{name}: row {few(differing)} is another one in the source"] if differing else []


_PLACES = (SOURCE_ROW, TURN)
