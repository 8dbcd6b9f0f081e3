"""The indicators that a record lists against the columns that there are: each scored column has one that wrote it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from im_datasets.data.columns import SOURCE_ROW, TURN
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import NotRescorable, rebuild
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.selection.added_columns import IS_KEPT
from im_datasets.selection.select import DUPLICATE_OF, RANK, REASON, ROW, TARGET

CLAIMED = ("record.indicators.*.name", "record.indicators.*.writes")


def check_indicators(published: PublishedSelection) -> Iterator[Check]:
    """Whether every column that the rule reads was written by one listed indicator, and each writes what it says."""
    record = published.record
    if record is None or not published.scored:
        return
    writers = Counter(column for indicator in record.indicators for column in indicator.writes)
    wrong = [f"{column}, which the rule reads, is of no listed indicator" for column in _unwritten(record, writers)]
    wrong += [f"{column} is written by {times} listed indicators" for column, times in writers.items() if times > 1]
    for indicator in record.indicators:
        wrong += _wrong_writes(indicator) + _wrong_model(indicator)
    for name, side in published.scored.items():
        lacking = [column for column in writers if column not in side.column_names]
        wrong += [f"{name} has no column {column}, which a listed indicator wrote" for column in lacking]
    finding = f"every column that the rule reads is written by one of {len(record.indicators)} indicators"
    yield verdict("indicators", wrong, finding, CLAIMED)
    if foreign := _foreign(published, record):
        reason = f"{few(foreign)}: no listed indicator wrote it, and the rule does not read it"
        yield Check("indicators", Outcome.NOT_CHECKED, reason)


def _unwritten(record: ScoringRecord, writers: Counter[str]) -> list[str]:
    return [column for column in record.rule.columns if not writers[column]]


def _wrong_writes(record: IndicatorRecord) -> list[str]:
    """What an indicator says to write and, made again, does not, or the other way round."""
    try:
        writes = list(rebuild(record).writes)
    except NotRescorable:
        # Said of each where rows are scored again.
        return [] if record.writes else [f"the indicator {record.name} writes nothing"]
    return [] if writes == record.writes else [f"{record.name} writes {few(writes)}, recorded is {few(record.writes)}"]


def _wrong_model(record: IndicatorRecord) -> list[str]:
    """A dtype that is another one in the settings: how far scores may be off depends on it."""
    embedder = record.settings.get("embedder")
    settings: dict[str, Any] = embedder if isinstance(embedder, dict) else record.settings
    dtype, model = settings.get("dtype"), record.model or {}
    if dtype is not None and record.model is not None and model.get("dtype") != dtype:
        return [f"{record.name} is set to {dtype}, its model is recorded as {model.get('dtype')}"]
    return []


def _foreign(published: PublishedSelection, record: ScoringRecord) -> list[str]:
    """Columns with the prefix of this package that neither an indicator of the record nor a selection wrote."""
    written = {column for indicator in record.indicators for column in indicator.writes}
    known = {*written, *record.rule.columns, *record.columns.mapping.values(), *(LOG_LOSS, UNSCORABLE, ROW, RANK)}
    if TURN in known or record.columns.mapping == {"messages": "messages"}:
        # Of a row that is one turn of a conversation, or one answer of a tree.
        known.add(SOURCE_ROW)
    if published.claims.get("targets"):
        known.add(TARGET)
    foreign: dict[str, None] = {}
    for name, rows in published.tables.items():
        own = known | _OF_A_CONFIG.get(name, set())
        foreign |= dict.fromkeys(column for column in rows.column_names if column not in own)
    return [column for column in foreign if column.startswith("im_")]


_OF_A_CONFIG = {"dropped": {REASON, DUPLICATE_OF}, "scores": {REASON, DUPLICATE_OF, IS_KEPT}}
