"""Does a published selection hold what it claims? Files, counts, cut, rule, statistics, card, and a sample re-scored.

Each check is one function that says what it found; what could not be checked is said as plainly as what failed.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from im_datasets.common.errors import ImDatasetsError, MissingExtraError, message_of
from im_datasets.hub.client import is_of_the_hub, without_tokens
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import (
    Check,
    Outcome,
    check_card,
    check_counts,
    check_cut,
    check_files,
    check_rule,
    check_statistics,
)
from im_datasets.hub.verification.loading import check_loading
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
    unread = list(_guarded("counts", _read(published), "the rows cannot be read"))
    if unread:
        yield from unread
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


def _read(published: PublishedSelection) -> Iterator[Check]:
    """Nothing where the rows can be read, which all other checks take."""
    _ = published.selection
    yield from ()


def _guarded(
    name: str, check: Iterator[Check], failure: str = "cannot be checked, something is not as it should be"
) -> Iterator[Check]:
    """What a check finds, and what becomes of one that breaks off, whatever it ran into.

    Where the Hub refuses or breaks off, or something lacks here, nothing is known. Any other trouble comes of what is
    checked, and so the check has failed.
    """
    try:
        yield from check
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # A library in Rust panics with a BaseException.
    except BaseException as error:  # noqa: BLE001
        if not is_of_the_hub(error) and not isinstance(error, (ImportError, MissingExtraError, MemoryError)):
            trouble = str(error) if isinstance(error, ImDatasetsError) else f"{type(error).__name__}: {error}"
            yield Check(name, Outcome.FAILED, f"{failure}: {trouble}")
        else:
            trouble = message_of(error, 300)
            yield Check(name, Outcome.NOT_CHECKED, f"could not be checked: {without_tokens(trouble)}")
