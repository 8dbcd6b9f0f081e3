"""Why rows were dropped, and that no kept row should have been: everything that takes no model."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.data.arrow import read_column
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import UNSCORED, Check, Outcome, few, numbers_of, values_of, verdict
from im_datasets.hub.verification.texts import has_texts, read_pairs
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.report.statistics import score_columns
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.contamination import EvaluationIndex
from im_datasets.selection.select import BELOW_THE_CUT, DUPLICATE_OF, NO_VALUE, RANK, REASON, ROW
from im_datasets.selection.walk import (
    CONTAMINATED,
    NEAR_DUPLICATE,
    NOT_CHECKED,
    OVER_THE_QUOTA,
    REPEATS_TARGET,
    group_codes,
)

UNREAD = f"{NOT_CHECKED}: "
INFINITE = "the log loss is infinite"

ASKED_BY = {
    OVER_THE_QUOTA: ("per_group",),
    NEAR_DUPLICATE: ("near_duplicates",),
    CONTAMINATED: ("exclude_contaminated",),
    REPEATS_TARGET: ("targets",),
    NOT_CHECKED: ("near_duplicates", "exclude_contaminated", "targets"),
}
"""Reason → the settings of a selection of which one has to be there for it."""


def check_settings(published: PublishedSelection) -> Iterator[Check]:
    """What was asked of the selection against how many rows it kept and why it dropped the others."""
    claims, wrong = settings_of(published), []
    if all(claims[name] is None for name in _SETTINGS):
        finding = "what was asked of the selection: nothing of it was published"
        yield Check("settings", Outcome.NOT_CHECKED, finding)
        return
    reasons: dict[str, int] = claims["reasons"]
    kept = claims["kept"]
    sizes = {name: claims[name] for name in ("top_k", "fraction", "threshold") if claims[name] is not None}
    if len(sizes) != 1:
        wrong.append(f"it was asked for {few([f'{n}={v}' for n, v in sizes.items()]) or 'no size'}, not for one size")
    wrong += _wrong_sizes(claims, sizes)
    for reason in reasons:
        wrong += _wrong_reason(reason, claims)
    if (claims["near_duplicates"] is None) != (claims["embedder"] is None):
        wrong.append("near_duplicates and its embedder go together, and one of them is missing")
    if (claims["exclude_contaminated"] is None) != (claims["evaluation_sha256"] is None):
        wrong.append("the number of evaluation texts and their digest go together, and one of them is missing")
    finding = f"{kept:,} kept rows are what {few([f'{n}={v}' for n, v in sizes.items()])} asks for"
    yield verdict(
        "settings", wrong, finding, tuple(f"selection.{n}" for n in ("top_k", "fraction", "threshold", "shortfall"))
    )


_SETTINGS = (
    *("top_k", "fraction", "threshold", "per_group", "near_duplicates", "embedder"),
    *("exclude_contaminated", "evaluation_sha256", "targets"),
)


def settings_of(published: PublishedSelection) -> dict[str, Any]:
    """What a publication says of its selection; None for what it says nothing of, as where somebody made it by hand."""
    return {**dict.fromkeys(_SETTINGS), "shortfall": 0, **published.claims}


def _wrong_sizes(claims: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    """Numbers of rows that are not what was asked for."""
    reasons: dict[str, int] = claims["reasons"]
    kept, dropped, shortfall = claims["kept"], claims["dropped"], claims["shortfall"]
    wrong = []
    if sum(reasons.values()) != dropped:
        wrong.append(f"{dropped} rows were dropped, with reasons for {sum(reasons.values())}")
    unscorable = sum(number for reason, number in reasons.items() if reason.startswith(UNSCORED))
    scorable = kept + dropped - unscorable
    expected = {
        "top_k": lambda: claims["top_k"] - shortfall,
        "fraction": lambda: max(1, math.floor(Fraction(str(claims["fraction"])) * scorable)) - shortfall,
        "threshold": lambda: kept,
    }
    for name, value in sizes.items():
        # A text such as 1e999999999 would be a fraction that nobody can wait for.
        if not isinstance(value, int | float):
            wrong.append(f"{name} is {value!r}, which is no number")
        elif kept != expected[name]():
            less = f", {shortfall} fewer for want of rows" if shortfall else ""
            wrong.append(f"{name}={value}{less} makes {expected[name]()} kept rows, not {kept}")
    # Rows are below the cut only when enough were kept before them.
    if shortfall and (reasons.get(BELOW_THE_CUT) or "threshold" in sizes or shortfall < 0):
        wrong.append(f"{shortfall} rows are said to be wanting, though there were more to take")
    if claims["threshold"] is not None and claims["cut"] is not None and claims["cut"] > claims["threshold"]:
        wrong.append(f"a kept row scores {claims['cut']}, worse than the threshold {claims['threshold']}")
    return wrong


def _wrong_reason(reason: str, claims: dict[str, Any]) -> list[str]:
    """What is wrong with a drop reason on its own: nobody drops rows for it, or nobody asked to."""
    if reason == BELOW_THE_CUT or reason.startswith(UNSCORED):
        return []
    kind = NOT_CHECKED if reason.startswith(UNREAD) else reason
    if kind not in ASKED_BY:
        return [f"no selection drops rows for {reason!r}"]
    if all(claims.get(name) is None for name in ASKED_BY[kind]):
        return [f"rows were dropped as {reason!r}, which the selection was not asked for"]
    return []


@dataclass(frozen=True)
class Side:
    """What a selection says of some rows, as arrays of shape (rows,)."""

    rows: Dataset

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """What each row is called."""
        return numbers_of(self.rows, ROW).astype(np.int64)

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """1 is the best of all rows, 0 has no score."""
        return numbers_of(self.rows, RANK).astype(np.int64)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """The scores."""
        return numbers_of(self.rows, LOG_LOSS)

    @cached_property
    def reasons(self) -> list[str]:
        """Why each was dropped."""
        return [reason or "" for reason in values_of(self.rows, REASON)]

    @cached_property
    def twins(self) -> NDArray[np.int64]:
        """The kept row that each nearly repeats, -1 where it repeats none."""
        return numbers_of(self.rows, DUPLICATE_OF).astype(np.int64)

    @cached_property
    def unscorable(self) -> list[str]:
        """Why each has no score; empty where it has one, or where no column tells."""
        if UNSCORABLE not in self.rows.column_names:
            return [""] * len(self.rows)
        return [reason or "" for reason in values_of(self.rows, UNSCORABLE)]

    @classmethod
    def of(cls, published: PublishedSelection) -> tuple[Self, Self] | None:
        """Kept and dropped rows; None where reasons or scores of either were not published."""
        kept, dropped = published.scored.get("kept"), published.scored.get("dropped")
        if kept is None or dropped is None or REASON not in dropped.column_names:
            return None
        return cls(kept), cls(dropped)


def check_reasons(published: PublishedSelection) -> Iterator[Check]:
    """Every dropped row against the reason it was given, and every kept row against those it was not given."""
    sides = Side.of(published)
    if sides is None:
        reason = "why each row was dropped, and whether a better row should have been kept: reasons were not published"
        yield Check("reasons", Outcome.NOT_CHECKED, reason, ("selection.per_group",))
        return
    kept, dropped = sides
    wrong = _wrong_reasons(dropped, settings_of(published))
    wrong += _wrong_order(kept, dropped, settings_of(published))
    wrong += _wrong_twins(kept, dropped)
    wrong += _wrong_scores(kept, dropped)
    finding = f"{len(dropped.rows):,} dropped rows have a reason that their scores and ranks bear out"
    yield verdict("reasons", wrong, finding)
    if number := dropped.reasons.count(REPEATS_TARGET):
        finding = f"that {number:,} dropped rows repeat a target and no kept row does: the targets were not published"
        yield Check("reasons", Outcome.NOT_CHECKED, finding)
    yield from _check_quota(published, kept, dropped)
    yield from _check_texts(published, kept, dropped)


def _wrong_reasons(dropped: Side, claims: dict[str, Any]) -> list[str]:
    """Reasons that no selection has, or none that was asked for this, each with its rows."""
    wrong = []
    for reason in dict.fromkeys(dropped.reasons):
        for problem in _wrong_reason(reason, claims):
            places = [place for place, stated in enumerate(dropped.reasons) if stated == reason]
            wrong.append(f"{problem} (row {few(dropped.numbers[places].tolist())})")
    return wrong


def _wrong_order(kept: Side, dropped: Side, claims: dict[str, Any]) -> list[str]:
    """Rows dropped as below the cut that are not, and the other way round."""
    last = int(kept.ranks.max(initial=0))
    is_below = np.array([reason == BELOW_THE_CUT for reason in dropped.reasons], dtype=bool)
    wrong = []
    if above := dropped.numbers[is_below & (dropped.ranks <= last)].tolist():
        wrong.append(f"row {few(above)}: dropped as below the cut, and ranks above it")
    threshold = claims["threshold"]
    is_beyond = (dropped.ranks > last) if _takes_the_first(claims) else np.zeros(len(dropped.ranks), dtype=bool)
    if threshold is not None:
        is_beyond = dropped.losses > threshold
    if early := dropped.numbers[is_beyond & ~is_below & (dropped.ranks > 0)].tolist():
        wrong.append(f"row {few(early)}: ranks below the cut, where no row is dropped for a reason of its own")
    if threshold is not None and (passing := dropped.numbers[is_below & (dropped.losses <= threshold)].tolist()):
        wrong.append(f"row {few(passing)}: dropped as below the cut, and within the threshold")
    return wrong


def _takes_the_first(claims: dict[str, Any]) -> bool:
    """Whether the selection ended with its last kept row, and looked at none after it."""
    return (claims["top_k"] is not None or claims["fraction"] is not None) and not claims["shortfall"]


def _wrong_twins(kept: Side, dropped: Side) -> list[str]:
    """Near-duplicates that name no kept row better than they are, and others that name one."""
    ranks = dict(zip(kept.numbers.tolist(), kept.ranks.tolist(), strict=True))
    wrong, odd = [], []
    for number, rank, reason, twin in zip(
        dropped.numbers.tolist(), dropped.ranks.tolist(), dropped.reasons, dropped.twins.tolist(), strict=True
    ):
        if reason != NEAR_DUPLICATE:
            odd += [number] if twin != -1 else []
        elif twin not in ranks or ranks[twin] >= rank:
            wrong.append(number)
    finding = [f"row {few(wrong)}: a near-duplicate of no kept row that is better"] if wrong else []
    return finding + ([f"row {few(odd)}: no near-duplicate, yet it names one"] if odd else [])


def _wrong_scores(kept: Side, dropped: Side) -> list[str]:
    """Rows without a score that have one, and the other way round."""
    wrong = []
    for place, reason in enumerate(dropped.reasons):
        loss, stated = dropped.losses[place], dropped.unscorable[place]
        is_unscored = reason.startswith(UNSCORED)
        missing = NO_VALUE if math.isnan(loss) else INFINITE if math.isinf(loss) else ""
        due = f"{UNSCORED}{stated or missing}" if stated or missing else ""
        if (is_unscored or due) and (reason != due or math.isfinite(loss) or dropped.ranks[place] != 0):
            wrong.append(int(dropped.numbers[place]))
    finding = [f"row {few(wrong)}: the reason does not go with its score"] if wrong else []
    if unscored := [int(kept.numbers[place]) for place, reason in enumerate(kept.unscorable) if reason]:
        finding.append(f"row {few(unscored)}: kept, though said to be unscorable")
    return finding


def _check_quota(published: PublishedSelection, kept: Side, dropped: Side) -> Iterator[Check]:
    """Groups that have more rows than they may, and rows dropped though their group had room."""
    limits = settings_of(published)["per_group"]
    if limits is None:
        return
    column, quota = limits["column"], limits["quota"]
    if any(column not in side.rows.column_names for side in (kept, dropped)):
        number = dropped.reasons.count(OVER_THE_QUOTA)
        reason = f"{number:,} rows dropped as over the quota: the column {column} was not published"
        yield Check("reasons", Outcome.NOT_CHECKED, reason, ("selection.per_group",))
        return
    columns = [read_column(side.rows, column) for side in (kept, dropped)]
    groups = group_codes(pa.chunked_array([chunk for part in columns for chunk in part.chunks], columns[0].type))
    of_kept, of_dropped = groups[: len(kept.rows)], groups[len(kept.rows) :]
    wrong = [
        f"{number} rows of one {column} are kept, the quota is {quota}"
        for number in Counter(of_kept.tolist()).values()
        if number > quota
    ]
    ranks = {group: np.sort(kept.ranks[of_kept == group]) for group in np.unique(of_kept).tolist()}
    early = [
        int(dropped.numbers[place])
        for place, reason in enumerate(dropped.reasons)
        if reason == OVER_THE_QUOTA
        and np.searchsorted(ranks.get(int(of_dropped[place]), np.empty(0)), dropped.ranks[place]) < quota
    ]
    wrong += [f"row {few(early)}: dropped as over the quota, and its group had room"] if early else []
    finding = f"no group of {column} has more than {quota} rows, and those left out had that many better ones"
    yield verdict("reasons", wrong, finding, ("selection.per_group",))


def _check_texts(published: PublishedSelection, kept: Side, dropped: Side) -> Iterator[Check]:
    """Rows that hold no pair are those that were said to, for that reason."""
    record, wrong, read = published.record, [], 0
    if record is None:
        return
    for name, side in (("kept", kept), ("dropped", dropped)):
        if not has_texts(record, side.rows):
            finding = f"which {name} rows hold no pair: their texts were not published"
            yield Check("reasons", Outcome.NOT_CHECKED, finding)
            continue
        wrong += _wrong_pairs(record, side, dropped.reasons if name == "dropped" else [""] * len(side.rows))
        read += len(side.rows)
    if read:
        failures = [f"row {few(wrong)}: the reason for having no score is another one"] if wrong else []
        finding = f"{read:,} rows read again; those without a pair are those that were said to be"
        yield verdict("reasons", failures, finding)


def _wrong_pairs(record: ScoringRecord, side: Side, dropped_for: list[str]) -> list[int]:
    """Rows whose texts do not bear out what they were called unscorable for."""
    reasons = [reason for pairs in read_pairs(record, side.rows) for reason in pairs.reasons]
    columns = [column for column in score_columns(record) if column in side.rows.column_names]
    has_none = {f"no {column}": np.isnan(numbers_of(side.rows, column)) for column in columns}
    wrong = []
    for place, (reason, stated, given) in enumerate(zip(reasons, side.unscorable, dropped_for, strict=True)):
        # A row with a pair may still lack a value, which no reading tells.
        lacks_a_value = not reason and stated in has_none and has_none[stated][place]
        is_told = stated == reason or lacks_a_value
        if not is_told or (given.startswith(UNREAD) and given != f"{UNREAD}{reason}"):
            wrong.append(int(side.numbers[place]))
    return wrong


def check_evaluation(published: PublishedSelection, index: EvaluationIndex | None) -> Iterator[Check]:
    """No kept row repeats an evaluation text, and every row dropped for it does.

    Args:
        published: What is verified.
        index: The evaluation texts as their owner has them; None where nobody handed them over.
    """
    claims, spoken = settings_of(published), ("selection.exclude_contaminated", "selection.evaluation_sha256")
    record = published.record
    if claims["exclude_contaminated"] is None:
        if index is not None:
            yield Check("evaluation", Outcome.NOT_CHECKED, "the selection was asked to leave out no evaluation texts")
        return
    number = claims["reasons"].get(CONTAMINATED, 0)
    what = f"that {number:,} rows repeat evaluation texts and no kept row does"
    if index is None:
        yield Check("evaluation", Outcome.NOT_CHECKED, f"{what}: pass these texts with --evaluation", spoken)
        return
    if (index.texts, index.sha256) != (claims["exclude_contaminated"], claims["evaluation_sha256"]):
        other = f"{what}: the {index.texts} texts given are not the {claims['exclude_contaminated']} of the selection"
        yield Check("evaluation", Outcome.NOT_CHECKED, f"{other} (sha256 {index.sha256})", spoken)
        return
    looked: dict[str, Dataset] = {}
    for name, rows in published.sides.items():
        if record is None or not has_texts(record, rows) or (name == "dropped" and REASON not in rows.column_names):
            finding = f"{what}: the {name} rows were published without texts or reasons"
            yield Check("evaluation", Outcome.NOT_CHECKED, finding)
        else:
            looked[name] = rows
    if record is not None and looked:
        wrong = [wrong for name, rows in looked.items() for wrong in _wrong_repeats(record, name, rows, index)]
        finding = f"of the {' and '.join(looked)} rows, those that repeat evaluation texts are as said"
        yield verdict("evaluation", wrong, finding, spoken)


def _wrong_repeats(record: ScoringRecord, name: str, rows: Dataset, index: EvaluationIndex) -> list[str]:
    """Kept rows that repeat an evaluation text, and rows dropped for it that do not."""
    texts = (text for pairs in read_pairs(record, rows) for text in pairs.instructions)
    repeats = [index.is_repeated_by(text) for text in texts]
    if name == "kept":
        return [
            f"kept row {_number(rows, place)} repeats an evaluation text"
            for place, is_repeat in enumerate(repeats)
            if is_repeat
        ]
    return [
        f"row {_number(rows, place)} was dropped as contaminated and repeats no evaluation text"
        for place, reason in enumerate(values_of(rows, REASON))
        if reason == CONTAMINATED and not repeats[place]
    ]


def _number(rows: Dataset, place: int) -> int:
    return int(values_of(rows.select([place]), ROW)[0]) if ROW in rows.column_names else place
