"""A record's indicators → the same indicators again, to compare what they give with what was published.

A record comes from a stranger: it may name classes of this package and models of the Hub, and nothing of it is
run or opened beyond that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.settings import NotRescorable, compares_rows, describe_model
from im_datasets.models.static_embedder import STATIC
from im_datasets.models.value_store import using_store
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Dtype of the model → how far a score may be off, relative to 1 + its size: other devices add up in other orders."""

EXACT = 1e-9
"""The same for an indicator without a model."""


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


def tolerance_of(record: IndicatorRecord) -> float:
    """How far this indicator's scores may be off."""
    return TOLERANCES.get(str(record.model.get("dtype")), TOLERANCES["bfloat16"]) if record.model else EXACT


def read_pairs(record: ScoringRecord, rows: Dataset) -> Pairs:
    """The pairs of some rows, read as they were read when they were scored."""
    record.columns.require(rows.column_names)
    return record.columns.pairs(rows.with_format(None)[:])


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
    names = rows["im_row"][:]
    found = []
    for column in record.writes:
        published = np.asarray(rows[column][:], dtype=np.float64)
        off = _difference(published, np.asarray(fresh[column], dtype=np.float64))
        tolerance = tolerance_of(record)
        differing = [int(names[place]) for place in np.flatnonzero(~(off <= tolerance))]
        found.append(Agreement(column, len(off), float(off.max(initial=0.0)), tolerance, differing))
    return found


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
    here, there = model["revision"], record.model.get("revision")
    if here != there and record.model.get("id") == STATIC:
        # Every machine distils it for itself, and another kind of processor rounds otherwise.
        raise NotRescorable(f"the static model distilled here is {here}, the record names {there}")
    if here != there:
        raise HubError(f"the model here is {here}, the record names {there}")


def _difference(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference relative to 1 + size; 0 where both have no value, infinite where one has none."""
    with np.errstate(invalid="ignore"):
        off = np.abs(left - right) / (1 + np.abs(left))
    off[np.isnan(left) & np.isnan(right)] = 0.0
    return np.where(np.isnan(off), np.inf, off)
