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
from im_datasets.data.arrow import pick_rows, undecoded
from im_datasets.data.pairs import Pairs
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, values_of
from im_datasets.hub.verification.odds import tell_odds
from im_datasets.hub.verification.texts import has_texts, read_some
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.length import Length
from im_datasets.indicators.settings import (
    NotRescorable,
    Recorded,
    compares_rows,
    describe_model,
    embedder_of,
    rebuild,
    runs_model,
)
from im_datasets.models.hub_models import EMBEDDED, download_size
from im_datasets.models.static_embedder import STATIC
from im_datasets.models.value_store import using_store
from im_datasets.scoring.record import IndicatorRecord
from im_datasets.selection.select import NO_VALUE, REASON, ROW

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Dtype of the model → how far a score may be off, relative to 1 + its size: other devices add up in other orders."""

EXACT = 1e-9
"""The same for an indicator without a model."""

CHOSEN = "which the publisher chose; look who made it, and of what"
"""Of a model that is not packaged: one that says what the scores ought to be gives them again."""

NEIGHBOUR_ROWS = 5000
"""Rows up to which neighbour distances are computed again, which takes the vectors of all rows."""

SCORED_AGAIN = (
    *("record.columns.fields", "record.indicators.*.version", "record.indicators.*.settings"),
    *("record.indicators.*.model", "record.indicators.*.search.vectors"),
)
"""The claims that scoring again bears out."""


MODEL_BYTES = 40 * 2**30
"""The most that is fetched of a model that a record names: 8 thousand million parameters in all their formats."""

TOKENIZER_FILES = (".json", ".model", ".txt", ".tiktoken", ".jinja")
"""Suffixes of what is fetched where only a tokenizer is named."""


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
            return Check("sample", Outcome.FAILED, f"{wrong} (row {few(self.differing)}); {size}", SCORED_AGAIN)
        size = f"off by {self.largest:.1g} at most, allowed {self.tolerance:g}"
        return Check(
            "sample", Outcome.PASSED, f"{self.column}: {self.rows} rows scored again agree ({size})", SCORED_AGAIN
        )


def check_sample(published: PublishedSelection, sample: int | None, seed: int) -> Iterator[Check]:
    """Some rows of each side scored again; ``verify`` tells of the arguments.

    Args:
        published: What is verified.
        sample: Rows of each side; None takes all of them.
        seed: Draws them.
    """
    scoring = published.record
    if scoring is None or sample == 0:
        finding = "no row was scored again" + (": sample is 0" if scoring else "")
        yield Check("sample", Outcome.NOT_CHECKED, finding, SCORED_AGAIN)
        return
    sides = {
        name: side for name, side in published.scored.items() if has_texts(scoring, side) and ROW in side.column_names
    }
    if not any(len(side) for side in sides.values()):
        finding = "no row was scored again: texts and scores were not both published"
        yield Check("sample", Outcome.NOT_CHECKED, finding, SCORED_AGAIN)
        return
    rows = _side_by_side(list(sides.values()))
    drawn = {name: draw_rows(side, sample, seed) for name, side in sides.items()}
    chosen = _side_by_side([pick_rows(side, drawn[name]) for name, side in sides.items()])
    is_whole = "dropped" in sides and len(rows) == scoring.rows and (sample is None or len(rows) <= NEIGHBOUR_ROWS)
    pairs = read_some(scoring, chosen)
    for record in scoring.indicators:
        if any(column not in chosen.column_names for column in record.writes):
            yield Check("sample", Outcome.NOT_CHECKED, f"{record.name}: its columns were not published", SCORED_AGAIN)
            continue
        try:
            indicator = rebuild(record)
            _check_size(indicator)
            if compares_rows(indicator) and not is_whole:
                needed = f"both sides with texts are needed, at most {NEIGHBOUR_ROWS:,} rows"
                raise NotRescorable(f"it compares all rows, for which {needed}")
            compared = (read_some(scoring, rows), rows) if compares_rows(indicator) else (pairs, chosen)
            agreements = rescore(indicator, record, *compared)
        except NotRescorable as error:
            read = [column for column in record.writes if column in scoring.rule.columns]
            of_rule = f" (the rule reads {few(read)})" if read else ""
            yield Check("sample", Outcome.NOT_CHECKED, f"{record.name}{of_rule}: {error}", SCORED_AGAIN)
        except HubError as error:
            yield Check("sample", Outcome.FAILED, f"{record.name}: {error}")
        else:
            yield from (agreement.check() for agreement in agreements)
            if models := chosen_models(record):
                reason = (
                    f"{few(record.writes)}: by {few(models)}, which the publisher chose; look who made it, and of what"
                )
                yield Check("sample", Outcome.NOT_CHECKED, reason)
    # Of those drawn at random alone.
    yield from _told_odds(
        published, {name: len(side) if sample is None else min(sample, len(side)) for name, side in sides.items()}
    )


def chosen_models(record: Recorded) -> list[str]:
    """The model and the tokenizer of the Hub that a record names: perhaps made for these scores."""
    model, own = record.model or {}, record.settings
    named = [(model.get("id"), model.get("revision")), (own.get("tokenizer"), own.get("revision"))]
    return [f"{name} at {str(commit)[:12]}" for name, commit in named if name not in (None, EMBEDDED, STATIC)]


def _check_size(indicator: Indicator) -> None:
    """Refuse to fetch a model or tokenizer beyond bounds: a record may name any."""
    named: list[tuple[str, str | None, tuple[str, ...]]] = []
    if model := indicator if runs_model(indicator) else embedder_of(indicator):
        named.append((model.model, model.revision, ()))
    if isinstance(indicator, Length):
        named.append((indicator.tokenizer, indicator.revision, TOKENIZER_FILES))
    for name, revision, suffixes in named:
        size = None if name in (EMBEDDED, STATIC) else download_size(name, revision, suffixes)
        if size is not None and size > MODEL_BYTES:
            most = f"more than {MODEL_BYTES / 2**30:.0f} GiB are not fetched for a record"
            raise NotRescorable(f"the files of {name} come to {size / 2**30:,.0f} GiB; {most}")


def draw_rows(side: Dataset, sample: int | None, seed: int) -> NDArray[np.int64]:
    """Places of the rows of one side to score again, in order.

    Drawn at random; beside them as many of those that were dropped because an indicator gave no value, which hides a
    row whatever it is worth.
    """
    rows = len(side)
    if sample is None or sample >= rows:
        return np.arange(rows)
    draw = Random(seed)  # noqa: S311 - a sample
    drawn = set(draw.sample(range(rows), sample))
    if REASON in side.column_names:
        blank = [p for p, reason in enumerate(values_of(side, REASON)) if reason and reason.startswith(_NO_VALUE)]
        drawn.update(draw.sample(blank, min(sample, len(blank))))
    return np.array(sorted(drawn), dtype=np.int64)


_NO_VALUE = (f"unscorable: {NO_VALUE}", "unscorable: no ")


def _told_odds(published: PublishedSelection, drawn: dict[str, int]) -> Iterator[Check]:
    """What the sample could have missed."""
    sizes = {name: len(side) for name, side in published.sides.items()}
    few_of = [tell_odds(sizes[name], number, name) for name, number in drawn.items() if number < sizes[name]]
    if few_of:
        finding = "rows that were not drawn. Scored again: " + "; ".join(few_of) + ". --sample all scores every row"
        yield Check("sample", Outcome.NOT_CHECKED, finding)
    if without := [f"{size:,} {name} rows" for name, size in sizes.items() if name not in drawn and size]:
        finding = f"the scores of {' and '.join(without)}: texts and scores were not both published"
        yield Check("sample", Outcome.NOT_CHECKED, finding)


def _side_by_side(sides: list[Dataset]) -> Dataset:
    """The rows of several sides in the columns that all of them have."""
    filled = [side for side in sides if len(side)]
    shared = [name for name in filled[0].column_names if all(name in side.column_names for side in filled)]
    return undecoded(concatenate_datasets([side.select_columns(shared) for side in filled]))


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
    numbers, tolerance, agreements = np.asarray(values_of(rows, ROW)), tolerance_of(record), []
    for column in record.writes:
        published = np.asarray(values_of(rows, column), dtype=np.float64)
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
    model = describe_model(indicator)
    if model is None or record.model is None:
        if (model is None) != (record.model is None):
            has = "has a model" if record.model is None else "has none"
            raise HubError(f"the record names {'no model' if record.model is None else 'a model'}, and it {has}")
        return
    if model.get("id") != record.model.get("id"):
        raise HubError(f"the model of its settings is {model.get('id')}, the record names {record.model.get('id')}")
    # Else a score might be as far off as the other one allows.
    if "dtype" in model and model["dtype"] != record.model.get("dtype"):
        raise HubError(f"the model of its settings is in {model['dtype']}, recorded is {record.model.get('dtype')}")
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
