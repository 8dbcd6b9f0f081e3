"""Does a published selection hold what it claims? Files, counts, cut, rule, statistics, card, and a sample re-scored.

Each check is one function that says what it found; what could not be checked is said as plainly as what failed.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from datasets import Dataset, concatenate_datasets

from im_datasets.common.errors import HubError
from im_datasets.hub.checks import (
    BROKEN,
    FAILED,
    NOT_CHECKED,
    PASSED,
    Check,
    Found,
    check_card,
    check_counts,
    check_cut,
    check_files,
    check_loading,
    check_rule,
    check_statistics,
    few,
    verdict,
)
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.rescoring import Agreement, read_pairs, rescore
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import NotRescorable, compares_rows, rebuild
from im_datasets.report.statistics import score_columns
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import ROW

SAMPLE = 32
"""Rows that are scored again unless told otherwise."""

NEIGHBOUR_ROWS = 5000
"""Rows up to which neighbour distances are computed again, which takes the vectors of all rows."""


@dataclass(frozen=True)
class Verification:
    """What came of all checks.

    Attributes:
        name: What was verified.
        commit: The commit it was read at; None for a folder.
        checks: In the order they were made.
        seed: Draws the same sample again.
    """

    name: str
    commit: str | None
    checks: list[Check]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether nothing failed and something passed."""
        outcomes = {check.outcome for check in self.checks}
        return FAILED not in outcomes and PASSED in outcomes

    @property
    def unchecked(self) -> int:
        """How many claims could not be checked."""
        return sum(check.outcome == NOT_CHECKED for check in self.checks)


def verify(
    target: str | Path, *, revision: str | None = None, sample: int = SAMPLE, seed: int | None = None
) -> Verification:
    """Check a published selection against its own claims, and some of its scores against the models.

    Args:
        target: Owner and name on the Hub, a folder with a copy of it, or a folder that ``mine`` wrote.
        revision: Branch, tag, commit or ``refs/pr/…`` on the Hub; None is ``main``.
        sample: Rows to score again with the recorded models; 0 scores none.
        seed: Draws them; None draws them anew each time, so that nobody can know which.

    Returns:
        Every check with its outcome; ``ok`` says whether all held.

    Raises:
        HubError: Nothing is there, or it is no selection of im-datasets.
    """
    published = PublishedSelection.open(target, revision)
    seed = secrets.randbelow(2**31) if seed is None else seed
    return Verification(published.name, published.commit, list(_all_checks(published, sample, seed)), seed)


def _all_checks(published: PublishedSelection, sample: int, seed: int) -> Iterator[Check]:
    if published.is_from_cache:
        told = "the Hub cannot be reached, so this is the copy of it in the local cache; it may have moved on"
        yield Check("commit", NOT_CHECKED, told)
    yield from _checked("files", lambda: check_files(published))
    try:
        kept, dropped = published.sides()
        found = Found(published, published.record, kept, dropped, published.selection())
    except BROKEN as error:
        yield Check("counts", FAILED, f"the rows cannot be read: {error}")
        return
    checks: dict[str, Callable[[], Iterator[Check]]] = {
        "counts": lambda: check_counts(found),
        "loading": lambda: check_loading(found),
        "cut": lambda: check_cut(found),
        "rule": lambda: check_rule(found),
        "statistics": lambda: check_statistics(found),
        "card": lambda: check_card(found),
        "sample": lambda: _sample(found, sample, seed),
    }
    for name, check in checks.items():
        yield from _checked(name, check)


def _checked(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A check's findings; one that breaks on what it finds has failed."""
    try:
        yield from check()
    except BROKEN as error:
        yield Check(name, FAILED, f"cannot be checked, something is not as it should be: {error!r}")


def _sample(found: Found, sample: int, seed: int) -> Iterator[Check]:
    if found.record is None or not sample:
        yield Check("sample", NOT_CHECKED, "no row was scored again" + ("" if sample else ": sample is 0"))
        return
    rows = _with_texts(found, found.record)
    if rows is None:
        yield Check("sample", NOT_CHECKED, "no row was scored again: texts and scores were not both published")
        return
    whole = found.dropped is not None and len(rows) == found.record.rows <= NEIGHBOUR_ROWS
    places = sorted(Random(seed).sample(range(len(rows)), min(sample, len(rows))))  # noqa: S311 - a sample
    drawn = rows.select(places)
    pairs = read_pairs(found.record, drawn)
    yield _unscorable(pairs.reasons, drawn, score_columns(found.record))
    for record in found.record.indicators:
        if any(column not in drawn.column_names for column in record.writes):
            yield Check("sample", NOT_CHECKED, f"{record.name}: its columns were not published")
            continue
        try:
            indicator = rebuild(record)
            if compares_rows(indicator) and not whole:
                needed = f"both sides with texts are needed, at most {NEIGHBOUR_ROWS:,} rows"
                raise NotRescorable(f"it compares all rows, for which {needed}")
            several = (read_pairs(found.record, rows), rows) if compares_rows(indicator) else (pairs, drawn)
            agreements = rescore(indicator, record, *several)
        except NotRescorable as error:
            yield Check("sample", NOT_CHECKED, f"{record.name}: {error}")
        except HubError as error:
            yield Check("sample", FAILED, f"{record.name}: {error}")
        else:
            yield from map(_agreement, agreements)


def _with_texts(found: Found, record: ScoringRecord) -> Dataset | None:
    """All rows of which both texts and scores are there."""
    needed = {*record.columns.mapping.values(), LOG_LOSS, ROW}
    sides = [side for side in found.sides.values() if len(side) and needed <= set(side.column_names)]
    shared = (
        [name for name in sides[0].column_names if all(name in side.column_names for side in sides)] if sides else []
    )
    return concatenate_datasets([side.select_columns(shared) for side in sides]) if sides else None


def _unscorable(reasons: list[str], rows: Dataset, columns: list[str]) -> Check:
    """Whether the rows that cannot be read as a pair are those that were said to be."""
    told = rows[UNSCORABLE][:] if UNSCORABLE in rows.column_names else [""] * len(rows)
    numbers = rows[ROW][:]
    wrong = [n for n, here, there in zip(numbers, reasons, told, strict=True) if here and here != there]
    lacking = {f"no {column}" for column in columns}
    wrong += [
        n for n, here, there in zip(numbers, reasons, told, strict=True) if there and not here and there not in lacking
    ]
    found = [f"row {few(wrong)}: the reason for having no score is another one"] if wrong else []
    return verdict("sample", found, f"{len(rows)} rows drawn; those without a pair are those that were said to be")


def _agreement(agreement: Agreement) -> Check:
    name, rows = agreement.column, agreement.rows
    if agreement.differing:
        wrong = f"{name}: {len(agreement.differing)} of {rows} rows score otherwise (row {few(agreement.differing)})"
        return Check("sample", FAILED, f"{wrong}; off by {agreement.largest:.2g}, allowed {agreement.tolerance:g}")
    told = f"{name}: {rows} rows scored again agree (off by {agreement.largest:.1g} at most"
    return Check("sample", PASSED, f"{told}, allowed {agreement.tolerance:g})")
