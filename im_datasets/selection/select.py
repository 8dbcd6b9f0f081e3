"""Scored dataset → Selection(kept, dropped), every row with its rank and every dropped row with its reason.

Ranks by ``im_log_loss``, or by the turns of target examples; works out how many rows to keep, and puts both sides
together. Which rows pass quota, contamination and near-duplicates, ``walk`` says.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets
from numpy.typing import NDArray

from im_datasets.common.errors import SelectionError
from im_datasets.data.arrow import RowNumbers, in_order, pick_rows, read_column
from im_datasets.data.columns import Columns
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.contamination import EvaluationIndex
from im_datasets.selection.duplicates import KeptVectors, TextEmbedder
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.targets import describe_targets, index_targets, order_by_targets, target_similarity
from im_datasets.selection.turns import TargetOrder
from im_datasets.selection.walk import Checks, Quota, Texts, WalkResult, walk_rows

BELOW_THE_CUT = "below the cut"
NO_VALUE = "an indicator gave no value"
"""Why a row without a reason of its own has no log loss."""

ROW, RANK, REASON, DUPLICATE_OF, TARGET = "im_row", "im_rank", "im_reason", "im_duplicate_of", "im_target"


@dataclass(frozen=True)
class Selection:
    """The two sides of a selection.

    Attributes:
        kept: The chosen rows, best first; all columns of the scored dataset plus ``im_row`` (index in the
            scored dataset, int64) and ``im_rank`` (int64, 1 = best of all rows); with targets also ``im_target`` (the
            target in whose turn the row came up, from 0; -1 = none; int64).
        dropped: The others in rank order, the unscorable ones (``im_rank`` 0) at the end in row order; also
            with ``im_reason`` (a category that can be counted) and ``im_duplicate_of`` (``im_row`` of the
            kept row that a near-duplicate repeats, -1 = none; int64).
        settings: The request as plain data, as ``SelectionRequest.settings`` tells it, with its ``shortfall``: how many
            rows fewer than asked for were left after the checks.
        cut: The log loss of the worst kept row; None when nothing is kept, or rows were chosen by targets.
        reasons: Drop reason → number of rows, most frequent first.
        record: How the scores came about, as ``mine`` and ``load_selection`` have it; None where there is no record.
        media_from: Whose files the rows may name, as ``push_selected`` takes it: the folder or the Hub dataset that was
            handed to ``mine`` in this process; None where that is not known. It is never written down: whoever wrote
            the rows could name a folder of yours.
    """

    kept: Dataset
    dropped: Dataset
    settings: dict[str, Any] = field(default_factory=dict)
    cut: float | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    record: ScoringRecord | None = None
    media_from: str | None = field(default=None, compare=False, repr=False)


def select(
    ds: Dataset,
    *,
    top_k: int | None = None,
    fraction: float | None = None,
    threshold: float | None = None,
    per_group: tuple[str, int] | None = None,
    near_duplicates: float | None = None,
    exclude_contaminated: Iterable[str] | None = None,
    targets: Any = None,
    target_model: str | None = None,
    seed: int = 0,
    columns: Columns | None = None,
    embedder: TextEmbedder | None = None,
) -> Selection:
    """Choose the rows worth training on: those with the lowest predicted log loss that pass the checks.

    With ``targets`` the order is another one: each target in turn takes the nearest row that none has taken, nearness
    being the cosine of ``TargetSimilarity``; scores only say which rows are scorable. All below holds for that order,
    and a row that a check keeps out has had its turn. ``im_rank`` goes on behind the last row looked at by the cosine
    to the nearest target.

    Rows are walked from the lowest log loss up, ties by row index. A row is kept unless, asked in this order,
    its group is full ("over the quota"), a check asks for its text and it has none ("could not be checked: "
    and why), it repeats an evaluation text ("contaminated"), or it is nearly the same as a row kept before it
    ("near-duplicate"). The walk ends when enough rows are kept; every row after that is "below the cut" and
    is not looked at. Rows without a log loss are "unscorable: " and their ``im_unscorable``, or "an indicator gave no
    value".

    Args:
        ds: A dataset with ``im_log_loss`` (lower is better; NaN = could not be scored) and perhaps
            ``im_unscorable`` (a reason, or an empty string). A shuffled or filtered one is fine. An
            ``im_row`` that is already there stays; ``im_rank``, ``im_reason`` and ``im_duplicate_of`` of an
            earlier selection are replaced. A set format is not carried over.
        top_k: Keep this many rows. If the checks leave fewer, fewer are kept and ``settings["shortfall"]``
            says how many are missing.
        fraction: Keep this share of the scorable rows, in (0, 1]; rounded down, but at least one row.
        threshold: Keep the rows with a log loss at or below this.
        per_group: (column, quota): keep at most this many rows per value of the column. Rows without a value
            form one group of their own.
        near_duplicates: Cosine in (0, 1] between the embeddings of instruction and response, at or above
            which the worse of two rows is dropped; 1 means equal embeddings.
        targets: Examples of a job: a file, folder, Hub id or Dataset, a list of rows or of (instruction, response)
            pairs; or a ``TargetSimilarity`` with settings of your own. Rows that repeat the instruction of one, told as
            for ``exclude_contaminated``, are dropped as "repeats a target". Not with ``threshold``.
        target_model: A causal language model that tells nearness to the targets by RDS+, as ``Embedder(kind="causal")``
            takes it; None is the sentence encoder ``embedder``.
        exclude_contaminated: Evaluation texts (the instructions of an evaluation set). An instruction with
            more than half of the word 8-grams of one of them is dropped, and one that equals a text of fewer
            than 8 words; case, punctuation and spacing do not count, and in scripts without spaces a
            character counts as a word.
        seed: Recorded. No part of a selection is random, so it changes nothing.
        columns: Where instruction and response stand, for the two checks above; None finds them by name.
        embedder: Turns texts into unit vectors for ``near_duplicates`` and ``targets``; None is the embedded default.

    Returns:
        Both sides of the selection, which together hold every row once.

    Raises:
        SelectionError: A size is missing, doubled or out of range; ``ds`` is not a ``Dataset``, is empty, has
            no ``im_log_loss`` or no scorable row; the group column is unknown or holds no plain values; an
            evaluation text is not a string; the embedder does not give one unit vector per text.
        ColumnsError: A check needs the texts, and instruction and response cannot be told from the columns.

    Example:
        >>> ds = Dataset.from_dict({"q": ["a", "b", "c"], "im_log_loss": [0.3, 0.1, 0.2]})
        >>> selection = select(ds, top_k=2)
        >>> selection.kept["q"][:], selection.cut, selection.reasons
        (['b', 'c'], 0.2, {'below the cut': 1})
    """
    request = SelectionRequest(
        top_k=top_k,
        fraction=fraction,
        threshold=threshold,
        per_group=per_group,
        near_duplicates=near_duplicates,
        exclude_contaminated=exclude_contaminated,  # type: ignore[arg-type]
        seed=seed,
        targets=targets,
        target_model=target_model,
    )
    return select_rows(ds, request, columns=columns, embedder=embedder)


def select_rows(
    ds: Dataset, request: SelectionRequest, *, columns: Columns | None = None, embedder: TextEmbedder | None = None
) -> Selection:
    """What ``select`` does, asked by a request.

    Raises:
        SelectionError: The request cannot be met by this dataset.
        ColumnsError: A check needs the texts, and instruction and response cannot be told from the columns.
        IndicatorError: The targets hold no pair.
        SourceError: The targets cannot be found or read.
    """
    _check_dataset(ds)
    ranking = _rank(ds)
    order, limit = _size(ranking, request)
    evaluation_texts, threshold = request.exclude_contaminated, request.near_duplicates
    evaluation = None if evaluation_texts is None else EvaluationIndex.build(evaluation_texts)
    if embedder is None and (threshold is not None or request.targets is not None):
        # Opens a model, which most selections have no need of.
        from im_datasets.models.embedder import Embedder

        embedder = Embedder()
    similarity = target_similarity(request, embedder)
    needs_texts = evaluation is not None or threshold is not None or similarity is not None
    texts = Texts(ds, columns or Columns.detect(ds.column_names)) if needs_texts else None
    turns = order_by_targets(similarity, texts, order, limit) if similarity is not None and texts is not None else None
    checks = Checks(
        quota=Quota(ds, request.per_group),
        texts=texts,
        evaluation=evaluation,
        targets=None if similarity is None else index_targets(similarity),
        vectors=None if threshold is None else KeptVectors(threshold),
        embedder=embedder,
    )
    walk = walk_rows(order if turns is None else turns, limit, checks)
    settings = request.settings(
        embedder=embedder.describe() if embedder is not None and threshold is not None else None,
        evaluation_sha256=evaluation.sha256 if evaluation is not None else None,
        targets=None if similarity is None else describe_targets(similarity),
        shortfall=0 if request.threshold is not None else limit - len(walk.kept),
    )
    return _assemble(ds, ranking, walk, turns, settings)


def _check_dataset(ds: Any) -> None:
    if isinstance(ds, IterableDataset):
        raise SelectionError(
            "got an IterableDataset, of which only one pass is possible; write it down first: "
            "ds.to_parquet('scored.parquet'), then Dataset.from_parquet('scored.parquet')"
        )
    if not isinstance(ds, Dataset):
        raise SelectionError(
            f"got a {type(ds).__name__}; select takes one Dataset, such as ds['train'] of a DatasetDict"
        )
    if LOG_LOSS not in ds.column_names:
        raise SelectionError(
            f"no {LOG_LOSS} column in {ds.column_names}; map the dataset with InstructMining(...) first"
        )
    if len(ds) == 0:
        raise SelectionError("the dataset has no rows; there is nothing to select from")


class _Reasons:
    """Why each row is dropped, as one small number per row: millions of rows share a handful of reasons."""

    def __init__(self, rows: int) -> None:
        self._codes = np.zeros(rows, dtype=np.int32)
        self._names = {"": 0}

    def set(self, rows: NDArray[Any] | int, reason: str) -> None:
        """Give rows (a number, numbers, or a mask) this reason in place of an earlier one."""
        self._codes[rows] = self._names.setdefault(reason, len(self._names))

    def rows(self) -> RowNumbers:
        """The rows that have one, in order."""
        return np.flatnonzero(self._codes)

    def count(self) -> dict[str, int]:
        """Reason → rows, most frequent first, ties by name."""
        counts = np.bincount(self._codes, minlength=len(self._names)).tolist()
        tally = [(name, counts[code]) for name, code in self._names.items() if name and counts[code]]
        return dict(sorted(tally, key=lambda item: (-item[1], item[0])))

    def column(self) -> pa.Array:
        """The reasons as text, an empty one where there is none."""
        return pa.DictionaryArray.from_arrays(pa.array(self._codes), pa.array(list(self._names))).cast(pa.string())


@dataclass(frozen=True)
class _Ranking:
    """Rows by quality.

    Attributes:
        log_loss: One per row, shape (n,).
        order: The scorable rows, best first.
        unscorable: The other rows, in order.
        reasons: Why the others are.
    """

    log_loss: NDArray[np.float64]
    order: RowNumbers
    unscorable: RowNumbers
    reasons: _Reasons


def _rank(ds: Dataset) -> _Ranking:
    log_loss = _log_loss(ds)
    reasons = _Reasons(len(log_loss))
    reasons.set(np.isnan(log_loss), f"unscorable: {NO_VALUE}")
    reasons.set(np.isinf(log_loss), "unscorable: the log loss is infinite")
    if UNSCORABLE in ds.column_names:
        stated = pc.dictionary_encode(read_column(ds, UNSCORABLE).combine_chunks())
        codes = stated.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        for code, reason in enumerate(stated.dictionary.to_pylist()):
            if reason:
                reasons.set(codes == code, f"unscorable: {reason}")
    # Stable, so that equal scores keep the order of their rows on every machine.
    order = np.argsort(log_loss, kind="stable")
    unscorable = reasons.rows()
    is_scorable = np.ones(len(log_loss), dtype=bool)
    is_scorable[unscorable] = False
    if len(unscorable) == len(log_loss):
        counts = reasons.count().items()
        listing = ", ".join(f"{reason.removeprefix('unscorable: ')} ({count})" for reason, count in counts)
        raise SelectionError(f"none of the {len(log_loss)} rows could be scored: {listing}")
    return _Ranking(log_loss, order[is_scorable[order]], unscorable, reasons)


def _log_loss(ds: Dataset) -> NDArray[np.float64]:
    column = read_column(ds, LOG_LOSS)
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise SelectionError(f"{LOG_LOSS} holds {kind}, not numbers; map the dataset with InstructMining(...) first")
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def _size(ranking: _Ranking, request: SelectionRequest) -> tuple[RowNumbers, int]:
    """The rows to walk and how many of them to keep at most."""
    order = ranking.order
    if request.threshold is not None:
        below = order[ranking.log_loss[order] <= request.threshold]
        return below, len(below)
    if request.fraction is not None:
        # Through the decimal digits: in floats, 0.29 of 100 rows would be 28.
        return order, max(1, math.floor(Fraction(str(request.fraction)) * len(order)))
    assert request.top_k is not None  # noqa: S101 - one of the three is set
    if request.top_k > len(order):
        raise SelectionError(
            f"top_k={request.top_k}, but only {len(order)} of {len(ranking.log_loss)} rows could be scored; "
            f"ask for {len(order)} or fewer, or for a fraction"
        )
    return order, request.top_k


def _assemble(
    ds: Dataset, ranking: _Ranking, walk: WalkResult, turns: TargetOrder | None, settings: dict[str, Any]
) -> Selection:
    """Put narrow new columns beside the untouched source and pick both sides from it by index."""
    ds = ds.with_format(None)
    ds = in_order(ds.remove_columns([n for n in (RANK, REASON, DUPLICATE_OF, TARGET) if n in ds.column_names]))
    seen = np.array(walk.seen, dtype=np.int64)
    if turns is not None:
        ranking = replace(ranking, order=np.concatenate([seen, turns.others(seen)]))
    is_kept = np.zeros(len(ds), dtype=bool)
    is_kept[walk.kept] = True
    below = ranking.order[~is_kept[ranking.order]]
    reasons = ranking.reasons
    reasons.set(below, BELOW_THE_CUT)
    # After the line above, which counts the rows dropped on the way too.
    for row, reason in walk.reasons.items():
        reasons.set(row, reason)
    added = [_new_columns(ds, ranking, reasons, walk.twins)]
    if turns is not None:
        added.append(_target_column(len(ds), seen, turns))
    full = concatenate_datasets([ds, *added], axis=1)
    return Selection(
        kept=pick_rows(full, np.array(walk.kept, dtype=np.int64)).remove_columns([REASON, DUPLICATE_OF]),
        dropped=pick_rows(full, np.concatenate([below, ranking.unscorable])),
        settings=settings,
        cut=float(ranking.log_loss[walk.kept[-1]]) if walk.kept and turns is None else None,
        reasons=reasons.count(),
    )


def _new_columns(ds: Dataset, ranking: _Ranking, reasons: _Reasons, twins: dict[int, int]) -> Dataset:
    """The columns a selection adds, one row per row of ``ds``."""
    names = _row_names(ds)
    rank = np.zeros(len(ds), dtype=np.int64)
    rank[ranking.order] = np.arange(1, len(ranking.order) + 1)
    duplicate_of = np.full(len(ds), -1, dtype=np.int64)
    duplicate_of[list(twins)] = names[list(twins.values())]
    new = {ROW: pa.array(names), RANK: pa.array(rank), REASON: reasons.column(), DUPLICATE_OF: pa.array(duplicate_of)}
    if ROW in ds.column_names:
        del new[ROW]
    return Dataset.from_dict(new, features=Features({n: Value("string" if n == REASON else "int64") for n in new}))


def _target_column(rows: int, seen: RowNumbers, turns: TargetOrder) -> Dataset:
    """In whose turn each row came up."""
    targets = np.full(rows, -1, dtype=np.int64)
    targets[seen] = turns.targets_of(seen)
    return Dataset.from_dict({TARGET: pa.array(targets)}, features=Features({TARGET: Value("int64")}))


def _row_names(ds: Dataset) -> RowNumbers:
    """What each row is called: its ``im_row`` where there is one already, else its index."""
    if ROW not in ds.column_names:
        return np.arange(len(ds), dtype=np.int64)
    column = read_column(ds, ROW)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise SelectionError(f"the dataset has a column {ROW} of {column.type} that is not a row number; rename it")
    names: RowNumbers = column.to_numpy().astype(np.int64)
    if len(np.unique(names)) < len(names):
        raise SelectionError(
            f"the column {ROW} of the dataset has a number twice, as when two selections are put together, so that "
            f"rows cannot be told apart; remove it first: ds.remove_columns({ROW!r})"
        )
    return names
