"""Does a published selection hold what it claims? Files, counts, cut, rule, statistics, card, and a sample re-scored.

Each check is one function that says what it found; what could not be checked is said as plainly as what failed.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import (
    BROKEN,
    Check,
    Outcome,
    check_card,
    check_counts,
    check_cut,
    check_files,
    check_loading,
    check_rule,
    check_statistics,
)
from im_datasets.hub.verification.rescoring import check_sample

SAMPLE = 32
"""Rows that are scored again unless told otherwise."""


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
        return Outcome.FAILED not in outcomes and Outcome.PASSED in outcomes

    @property
    def unchecked(self) -> int:
        """How many claims could not be checked."""
        return sum(check.outcome == Outcome.NOT_CHECKED for check in self.checks)


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
        reason = "the Hub cannot be reached, so this is the copy of it in the local cache; it may have moved on"
        yield Check("commit", Outcome.NOT_CHECKED, reason)
    yield from _guarded("files", check_files(published))
    try:
        _ = published.selection
    except BROKEN as error:
        yield Check("counts", Outcome.FAILED, f"the rows cannot be read: {error}")
        return
    checks = {
        "counts": check_counts(published),
        "loading": check_loading(published),
        "cut": check_cut(published),
        "rule": check_rule(published),
        "statistics": check_statistics(published),
        "card": check_card(published),
        "sample": check_sample(published, sample, seed),
    }
    for name, check in checks.items():
        yield from _guarded(name, check)


def _guarded(name: str, check: Iterator[Check]) -> Iterator[Check]:
    """What a check finds; one that breaks on what it finds has failed."""
    try:
        yield from check
    except BROKEN as error:
        yield Check(name, Outcome.FAILED, f"cannot be checked, something is not as it should be: {error!r}")
