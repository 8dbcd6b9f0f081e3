"""Does a published selection hold what it claims? Files, counts, cut, rule, statistics, card, and a sample re-scored.

Each check is one function that says what it found; what could not be checked is said as plainly as what failed.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from im_datasets.common.errors import HubError, ImDatasetsError, MissingExtraError, message_of
from im_datasets.data.source import check_place
from im_datasets.hub.client import is_of_the_hub, without_tokens
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.card import check_card
from im_datasets.hub.verification.checks import (
    Check,
    Outcome,
    check_counts,
    check_cut,
    check_files,
    check_rule,
    check_statistics,
)
from im_datasets.hub.verification.claims import check_claims
from im_datasets.hub.verification.duplicates import check_duplicates
from im_datasets.hub.verification.indicators import check_indicators
from im_datasets.hub.verification.layout import check_layout
from im_datasets.hub.verification.loading import check_loading
from im_datasets.hub.verification.reasons import check_evaluation, check_reasons, check_settings
from im_datasets.hub.verification.repository import check_repository
from im_datasets.hub.verification.rescoring import check_sample
from im_datasets.hub.verification.sources import check_source
from im_datasets.hub.verification.texts import check_columns
from im_datasets.scoring.progress import progress_bars
from im_datasets.selection.contamination import EvaluationIndex

SAMPLE = 32
"""Rows of each side that are scored again unless told otherwise."""

ALL = "all"
"""In place of their number: every row."""


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
        """How many lines tell of claims that could not be checked."""
        return sum(check.outcome == Outcome.NOT_CHECKED for check in self.checks)


def verify(
    target: str | Path,
    *,
    revision: str | None = None,
    sample: int | Literal["all"] = SAMPLE,
    seed: int | None = None,
    source: str | Path | None = None,
    evaluation: Sequence[str] | None = None,
) -> Verification:
    """Check a published selection against its own claims, and some of its scores against the models.

    Args:
        target: Owner and name on the Hub, a folder with a copy of it, or a folder that ``mine`` wrote.
        revision: Branch, tag, commit or ``refs/pr/…`` on the Hub; None is ``main``.
        sample: Kept rows, and as many dropped ones, to score again with the recorded models; 0 scores none, ``"all"``
            every row.
        seed: Draws them; None draws them anew each time, so that nobody can know which.
        source: A path or the id of a Hub dataset that the rows are said to be from, to compare them with; None reads
            no source, whatever the record names.
        evaluation: The evaluation texts that the selection is said to leave out, to look for them; None looks for none.

    Returns:
        Every check with its outcome; ``ok`` says whether all held.

    Raises:
        HubError: Nothing is there, or it is no selection of im-datasets; ``sample`` is neither.
        SourceError: ``source`` is no file or folder that is there, and no id of a dataset.
        SelectionError: ``evaluation`` is no list of texts, or holds no word.
    """
    if sample != ALL and not (isinstance(sample, int) and sample >= 0):
        raise HubError(f"sample={sample!r}; it must be a whole number, 0 or more, or 'all'")
    if source is not None:
        check_place(source)
    published = PublishedSelection.open(target, revision)
    request = VerificationRequest(
        None if isinstance(sample, str) else sample,
        secrets.randbelow(2**31) if seed is None else seed,
        source,
        None if evaluation is None else EvaluationIndex.build(evaluation),
    )
    with progress_bars(shown=False):
        checks = list(_all_checks(published, request))
        checks += _guarded("claims", check_claims(published, checks))
    return Verification(published.name, published.commit, checks, request.seed)


@dataclass(frozen=True)
class VerificationRequest:
    """What the one who verifies wants looked at; ``verify`` tells of each, a sample of None is every row."""

    sample: int | None
    seed: int
    source: str | Path | None
    evaluation: EvaluationIndex | None


def _all_checks(published: PublishedSelection, request: VerificationRequest) -> Iterator[Check]:
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
        "layout": check_layout(published),
        "loading": check_loading(published),
        "repository": check_repository(published),
        "cut": check_cut(published),
        "settings": check_settings(published),
        "reasons": check_reasons(published),
        "evaluation": check_evaluation(published, request.evaluation),
        "rule": check_rule(published),
        "indicators": check_indicators(published),
        "statistics": check_statistics(published),
        "card": check_card(published),
        "columns": check_columns(published),
        "source": check_source(published, request.source),
        "duplicates": check_duplicates(published, request.sample, request.seed),
        "sample": check_sample(published, request.sample, request.seed),
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
