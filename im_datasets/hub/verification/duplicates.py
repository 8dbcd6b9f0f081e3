"""Near-duplicates, told again by their embeddings: those dropped are some, and no two kept rows are."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.data.arrow import pick_rows
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.hub.verification.reasons import Side, settings_of
from im_datasets.hub.verification.rescoring import CHOSEN, chosen_models
from im_datasets.hub.verification.texts import has_texts, read_some
from im_datasets.indicators.settings import NotRescorable, Recorded, rebuild_embedder
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.duplicates import TOLERANCE
from im_datasets.selection.walk import NEAR_DUPLICATE

KEPT_ROWS = 5000
"""Kept rows up to which each is compared with every other, which takes the vectors of all of them."""

SLACK = 1e-4
"""How far a cosine of another device may be off."""

CLAIMED = ("selection.near_duplicates", "selection.embedder")


@dataclass(frozen=True)
class _Encoder:
    """What a record states of an encoder, as ``rebuild_embedder`` takes it."""

    settings: dict[str, Any]
    model: dict[str, Any]
    name: str = "Embedder"
    version: str = ""


def check_duplicates(published: PublishedSelection, sample: int | None, seed: int) -> Iterator[Check]:
    """Cosines of near-duplicates and the kept rows they name, and of all kept rows with each other.

    Args:
        published: What is verified.
        sample: Near-duplicates to look at; None takes all of them, and kept rows of any number.
        seed: Draws them.
    """
    record, sides, claims = published.record, Side.of(published), settings_of(published)
    if claims["near_duplicates"] is None:
        return
    number = claims["reasons"].get(NEAR_DUPLICATE, 0)
    what = f"that {number:,} rows are near-duplicates of kept ones, and that no two kept rows are"
    if sample == 0:
        yield Check("duplicates", Outcome.NOT_CHECKED, f"{what}: sample is 0", CLAIMED)
        return
    kept = published.sides["kept"]
    if record is None:
        yield Check("duplicates", Outcome.NOT_CHECKED, f"{what}: no record of the scoring was published", CLAIMED)
        return
    if not has_texts(record, kept):
        yield Check("duplicates", Outcome.NOT_CHECKED, f"{what}: the texts were not published", CLAIMED)
        return
    try:
        embedder = _embedder(record, claims["embedder"])
        with using_store(None):
            _check_weights(embedder, claims["embedder"])
            if not number:
                pass
            elif sides is None or not has_texts(record, sides[1].rows):
                reason = f"that {number:,} rows are near-duplicates of kept ones: their texts were not published"
                yield Check("duplicates", Outcome.NOT_CHECKED, reason)
            else:
                yield from _check_dropped(record, sides, claims["near_duplicates"], embedder, sample, seed)
            yield from _check_kept(record, kept, claims["near_duplicates"], embedder, sample)
        if models := chosen_models(_Encoder({}, claims["embedder"])):
            yield Check("duplicates", Outcome.NOT_CHECKED, f"how alike rows are: by {few(models)}, {CHOSEN}")
    except NotRescorable as error:
        yield Check("duplicates", Outcome.NOT_CHECKED, f"{what}: {error}", CLAIMED)


def _embedder(record: ScoringRecord, stated: dict[str, Any]) -> Embedder:
    """The encoder that told near-duplicates: that of the indicators where it is the same."""
    settings = {"model": stated["id"], "dtype": stated["dtype"]}
    same = [each for each in record.indicators if each.model and _names(each.model) == _names(stated)]
    recorded: list[Recorded] = [*same, _Encoder({"embedder": settings}, stated)]
    return next(embedder for each in recorded if (embedder := rebuild_embedder(each)) is not None)


def _names(model: dict[str, Any]) -> list[Any]:
    return [model.get(name) for name in ("id", "revision", "dtype")]


def _check_weights(embedder: Embedder, stated: dict[str, Any]) -> None:
    try:
        model = embedder.describe()
    except ImDatasetsError as error:
        raise NotRescorable(str(error)) from error
    if (model["id"], model["dtype"]) != (stated["id"], stated["dtype"]):
        names = f"{stated['id']} in {stated['dtype']}, it is {model['id']} in {model['dtype']}"
        raise HubError(f"the selection names the embedder {names}")
    if model["revision"] != stated["revision"]:
        raise NotRescorable(f"the embedder here is {model['revision']}, the selection names {stated['revision']}")


def _check_dropped(
    record: ScoringRecord, sides: tuple[Side, Side], threshold: float, embedder: Embedder, sample: int | None, seed: int
) -> Iterator[Check]:
    kept, dropped = sides
    places = [place for place, reason in enumerate(dropped.reasons) if reason == NEAR_DUPLICATE]
    total = len(places)
    if sample is not None and total > sample:
        places = sorted(Random(seed).sample(places, sample))  # noqa: S311 - a sample
    place_of = {number: place for place, number in enumerate(kept.numbers.tolist())}
    # One that names no kept row is a failure of its own, told from the columns alone.
    pairs = [(place, place_of[twin]) for place in places if (twin := int(dropped.twins[place])) in place_of]
    if not pairs:
        return
    rows, twins = np.array(pairs).T
    cosines = (_vectors(record, dropped.rows, rows, embedder) * _vectors(record, kept.rows, twins, embedder)).sum(
        axis=1
    )
    unlike = dropped.numbers[rows[cosines < threshold - TOLERANCE - SLACK]].tolist()
    wrong = [f"row {few(unlike)}: dropped as a near-duplicate and less alike than {threshold}"] if unlike else []
    finding = f"{len(pairs):,} of {total:,} near-duplicates are as alike to the kept rows they name as {threshold}"
    yield verdict("duplicates", wrong, finding, CLAIMED)
    if len(pairs) < total:
        reason = f"the other {total - len(pairs):,} near-duplicates: --sample all looks at all of them"
        yield Check("duplicates", Outcome.NOT_CHECKED, reason)


def _check_kept(
    record: ScoringRecord, kept: Dataset, threshold: float, embedder: Embedder, sample: int | None
) -> Iterator[Check]:
    if sample is not None and len(kept) > KEPT_ROWS:
        reason = f"that no two kept rows are near-duplicates: beyond {KEPT_ROWS:,} rows only --sample all compares them"
        yield Check("duplicates", Outcome.NOT_CHECKED, reason)
        return
    vectors = _vectors(record, kept, np.arange(len(kept)), embedder)
    alike = []
    # Equal texts have equal vectors on every device.
    least = min(threshold + SLACK, 1 - TOLERANCE)
    for start in range(0, len(vectors), KEPT_ROWS):
        block = vectors[start : start + KEPT_ROWS]
        for before in range(0, start + 1, KEPT_ROWS):
            later, earlier = np.nonzero(block @ vectors[before : before + KEPT_ROWS].T >= least)
            alike += (later[later + start > earlier + before] + start).tolist()
    wrong = [f"the kept row in place {few(sorted(set(alike)))} nearly repeats a better one"] if alike else []
    yield verdict("duplicates", wrong, f"no two of the {len(kept):,} kept rows are as alike as {threshold}", CLAIMED)


def _vectors(
    record: ScoringRecord, rows: Dataset, places: NDArray[np.int64], embedder: Embedder
) -> NDArray[np.float32]:
    """Embeddings of some rows, as a selection compares them."""
    pairs = read_some(record, pick_rows(rows, places))
    try:
        return embedder.embed([f"{i}\n\n{r}" for i, r in zip(pairs.instructions, pairs.responses, strict=True)])
    except ImDatasetsError as error:
        raise NotRescorable(str(error)) from error
