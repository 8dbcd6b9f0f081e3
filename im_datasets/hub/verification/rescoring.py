"""A sample of published rows → scored again by the record's indicators, and compared with what was published.

A record comes from a stranger: it may name classes of this package and models of the Hub, and nothing of it is
run or opened beyond that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.data.arrow import undecoded
from im_datasets.data.pairs import Pairs
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import NotRescorable, compares_rows, describe_model, rebuild
from im_datasets.models.static_embedder import STATIC
from im_datasets.models.value_store import using_store
from im_datasets.report.statistics import score_columns
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.selection.select import ROW

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Dtype of the model → how far a score may be off, relative to 1 + its size: other devices add up in other orders."""

EXACT = 1e-9
"""The same for an indicator without a model."""

NEIGHBOUR_ROWS = 5000
"""Rows up to which neighbour distances are computed again, which takes the vectors of all rows."""


@dataclass(frozen=True)
class Agreement:
    """How one column compares with its scores of now.

    Attributes:
        column: Which.
        rows: How many were compared.
        largest: The largest difference among them, relative to 1 + the value's size.
        tolerance: What counts as equal.
        differing: ``im_row`` of those beyond it.
    """

    column: str
    rows: int
    largest: float
    tolerance: float
    differing: list[int]

    def check(self) -> Check:
        """Whether the scores agree."""
        if self.differing:
            wrong = f"{self.column}: {len(self.differing)} of {self.rows} rows score otherwise"
            size = f"off by {self.largest:.2g}, allowed {self.tolerance:g}"
            return Check("sample", Outcome.FAILED, f"{wrong} (row {few(self.differing)}); {size}")
        size = f"off by {self.largest:.1g} at most, allowed {self.tolerance:g}"
        return Check("sample", Outcome.PASSED, f"{self.column}: {self.rows} rows scored again agree ({size})")


def check_sample(published: PublishedSelection, sample: int, seed: int) -> Iterator[Check]:
    """Some rows scored again, and which of them were said to hold no pair; ``verify`` tells of the arguments."""
    scoring = published.record
    if scoring is None or not sample:
        yield Check("sample", Outcome.NOT_CHECKED, "no row was scored again" + ("" if sample else ": sample is 0"))
        return
    rows = _with_texts(published, scoring)
    if rows is None:
        yield Check("sample", Outcome.NOT_CHECKED, "no row was scored again: texts and scores were not both published")
        return
    is_whole = "dropped" in published.sides and len(rows) == scoring.rows <= NEIGHBOUR_ROWS
    drawn = rows.select(sorted(Random(seed).sample(range(len(rows)), min(sample, len(rows)))))  # noqa: S311 - a sample
    pairs = _read_pairs(scoring, drawn)
    yield _check_reasons(pairs, drawn, scoring)
    for record in scoring.indicators:
        if any(column not in drawn.column_names for column in record.writes):
            yield Check("sample", Outcome.NOT_CHECKED, f"{record.name}: its columns were not published")
            continue
        try:
            indicator = rebuild(record)
            if compares_rows(indicator) and not is_whole:
                needed = f"both sides with texts are needed, at most {NEIGHBOUR_ROWS:,} rows"
                raise NotRescorable(f"it compares all rows, for which {needed}")
            compared = (_read_pairs(scoring, rows), rows) if compares_rows(indicator) else (pairs, drawn)
            agreements = rescore(indicator, record, *compared)
        except NotRescorable as error:
            yield Check("sample", Outcome.NOT_CHECKED, f"{record.name}: {error}")
        except HubError as error:
            yield Check("sample", Outcome.FAILED, f"{record.name}: {error}")
        else:
            yield from (agreement.check() for agreement in agreements)


def _with_texts(published: PublishedSelection, record: ScoringRecord) -> Dataset | None:
    """All rows of which both texts and scores are there, in the columns that both sides have."""
    needed = {*record.columns.mapping.values(), LOG_LOSS, ROW}
    sides = [side for side in published.scored.values() if len(side) and needed <= set(side.column_names)]
    if not sides:
        return None
    shared = [name for name in sides[0].column_names if all(name in side.column_names for side in sides)]
    return undecoded(concatenate_datasets([side.select_columns(shared) for side in sides]))


def _read_pairs(record: ScoringRecord, rows: Dataset) -> Pairs:
    """The pairs of some rows, read as they were read when they were scored."""
    record.columns.require(rows.column_names)
    return record.columns.pairs(rows.with_format(None)[:])


def _check_reasons(pairs: Pairs, rows: Dataset, record: ScoringRecord) -> Check:
    """Whether the rows that cannot be read as a pair are those that were said to be."""
    claims = rows[UNSCORABLE][:] if UNSCORABLE in rows.column_names else [""] * len(rows)
    # A row with a pair may still lack a score, which no reading tells.
    unread = {"", *(f"no {column}" for column in score_columns(record))}
    reasons = list(zip(rows[ROW][:], pairs.reasons, claims, strict=True))
    wrong = [row for row, reason, claim in reasons if reason and reason != claim]
    wrong += [row for row, reason, claim in reasons if not reason and (claim or "") not in unread]
    failures = [f"row {few(wrong)}: the reason for having no score is another one"] if wrong else []
    return verdict("sample", failures, f"{len(rows)} rows drawn; those without a pair are those that were said to be")


def tolerance_of(record: IndicatorRecord) -> float:
    """How far this indicator's scores may be off."""
    return TOLERANCES.get(str(record.model.get("dtype")), TOLERANCES["bfloat16"]) if record.model else EXACT


def rescore(indicator: Indicator, record: IndicatorRecord, pairs: Pairs, rows: Dataset) -> list[Agreement]:
    """Score pairs again and compare.

    Args:
        indicator: From ``rebuild``.
        record: What it is compared with.
        pairs: Of ``rows``.
        rows: With the published columns and ``im_row``; all rows there are for one that compares rows.

    Raises:
        NotRescorable: The model cannot be had here.
        HubError: The model here is not the one that was recorded.
    """
    try:
        # Computed anew: what the store kept may be what was published.
        with using_store(None):
            if compares_rows(indicator):
                search = record.search if isinstance(record.search, dict) else {}
                fresh = _neighbours(indicator, pairs, search.get("vectors", "float32"))
            else:
                fresh = indicator.score_pairs(pairs)
        _check_weights(indicator, record)
    except HubError:
        raise
    except ImDatasetsError as error:
        raise NotRescorable(str(error)) from error
    numbers, tolerance, agreements = np.asarray(rows[ROW][:]), tolerance_of(record), []
    for column in record.writes:
        published = np.asarray(rows[column][:], dtype=np.float64)
        differences = _difference(published, np.asarray(fresh[column], dtype=np.float64))
        differing = [int(number) for number in numbers[~(differences <= tolerance)]]
        largest = float(differences.max(initial=0.0))
        agreements.append(Agreement(column, len(differences), largest, tolerance, differing))
    return agreements


def _neighbours(indicator: KNNDistance, pairs: Pairs, precision: Any) -> dict[str, list[float]]:
    """Distances among all pairs, NaN where there is no pair or there are too few.

    Args:
        indicator: What gives the vectors and compares them.
        pairs: All of them.
        precision: In which the vectors were kept: ``"float32"`` or ``"float16"``.
    """
    if precision not in ("float32", "float16"):
        raise NotRescorable(f"its vectors were kept as {precision!r}, which is no precision that is known here")
    places = [place for place, reason in enumerate(pairs.reasons) if not reason]
    distances = np.full(len(pairs), np.nan)
    if len(places) > indicator.k:
        vectors = indicator.vectors([pairs.instructions[p] for p in places], [pairs.responses[p] for p in places])
        distances[places] = indicator.search(vectors.astype(precision, copy=False)).distances
    return {indicator.writes[0]: distances.tolist()}


def _check_weights(indicator: Indicator, record: IndicatorRecord) -> None:
    if record.model is None or (model := describe_model(indicator)) is None:
        return
    local, recorded = model["revision"], record.model.get("revision")
    if local != recorded and record.model.get("id") == STATIC:
        # Every machine distils it for itself, and another kind of processor rounds otherwise.
        raise NotRescorable(f"the static model distilled here is {local}, the record names {recorded}")
    if local != recorded:
        raise HubError(f"the model here is {local}, the record names {recorded}")


def _difference(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference relative to 1 + size; 0 where both have no value, infinite where one has none."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.abs(left - right) / (1 + np.abs(left))
    difference[np.isnan(left) & np.isnan(right)] = 0.0
    return np.where(np.isnan(difference), np.inf, difference)
