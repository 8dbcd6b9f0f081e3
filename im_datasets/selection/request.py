"""What is asked of a selection: how many rows, and what keeps a row out of it.

Loads nothing heavy, so that the command line can make its options from it.
"""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from im_datasets.common.errors import SelectionError


@dataclass(frozen=True)
class SelectionRequest:
    """How many rows to keep, and which rows to leave out; exactly one of top_k, fraction and threshold says how many.

    Attributes:
        top_k: Keep this many rows; fewer, with a ``shortfall`` in the settings, if the checks leave no more.
        fraction: Keep this share of the scorable rows, above 0 and at most 1; rounded down, but at least one row.
        threshold: Keep the rows with a log loss (``im_log_loss``) of at most this.
        per_group: (column, quota): keep at most this many rows per value of the column, rows without one together.
        near_duplicates: Cosine between embeddings of instruction and response, above 0 and at most 1, at or above which
            the worse of two rows is dropped; 1 means equal embeddings.
        exclude_contaminated: Evaluation texts; rows with more than half of the word 8-grams of one of them are
            dropped, and rows that equal one of fewer than 8 words. Case, punctuation and spacing do not count; in
            scripts without spaces a character counts as a word.
        seed: Recorded with the selection. No part of a selection is random, so it changes nothing.
        targets: Examples of a job, as ``TargetSimilarity`` takes them, or such an indicator: rows are taken by turns,
            each target's nearest first, instead of by their scores; rows that repeat a target are dropped.
        target_model: Causal language model by which nearness to the targets is told (RDS+); None is the sentence
            encoder that the rows are scored with.

    Raises:
        SelectionError: Not exactly one of the three sizes, a number out of range, targets with a threshold, or their
            model without them.
    """

    top_k: int | None = None
    fraction: float | None = None
    threshold: float | None = None
    per_group: tuple[str, int] | None = None
    near_duplicates: float | None = None
    exclude_contaminated: Sequence[str] | None = None
    seed: int = 0
    targets: object = None  # to name Dataset or the indicator here would import them for `--help`
    target_model: str | None = None

    def __post_init__(self) -> None:
        sizes = {"top_k": self.top_k, "fraction": self.fraction, "threshold": self.threshold}
        named = [f"{name}={value!r}" for name, value in sizes.items() if value is not None]
        if len(named) != 1:
            raise SelectionError(f"got {' and '.join(named) or 'no size'}; give exactly one of {', '.join(sizes)}")
        if self.top_k is not None and not _is_count(self.top_k):
            raise SelectionError(f"top_k={self.top_k!r}; it must be a whole number, 1 or more")
        if self.threshold is not None and not _is_finite(self.threshold):
            raise SelectionError(f"threshold={self.threshold!r}; it must be a finite log loss")
        for name, share in (("fraction", self.fraction), ("near_duplicates", self.near_duplicates)):
            if share is not None and not (_is_finite(share) and 0 < share <= 1):
                raise SelectionError(f"{name}={share!r}; it must be above 0 and at most 1")
        self._check_targets()
        if self.per_group is not None:
            _check_quota(self.per_group)
        # A number of numpy, or 1 for 1.0, asks for the same and must not make another record.
        kinds = {"top_k": int, "fraction": float, "threshold": float, "near_duplicates": float}
        for name, kind in kinds.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, kind(getattr(self, name)))
        # They are counted, digested and indexed; of an iterator only one pass is possible.
        if self.exclude_contaminated is not None and not isinstance(self.exclude_contaminated, str):
            object.__setattr__(self, "exclude_contaminated", tuple(self.exclude_contaminated))

    def _check_targets(self) -> None:
        if self.targets is not None and self.threshold is not None:
            raise SelectionError(
                "targets choose rows by nearness, a threshold by score; give top_k or fraction instead"
            )
        if self.target_model is not None and self.targets is None:
            raise SelectionError(f"target_model={self.target_model!r} without targets; pass targets, or leave it out")

    def check_enough(self, rows: int) -> None:
        """Check that there are as many rows as are asked for, whatever they will score.

        Raises:
            SelectionError: There are fewer.
        """
        if self.top_k is not None and self.top_k > rows:
            raise SelectionError(
                f"top_k={self.top_k}, but the dataset has {rows} rows; ask for {rows} or fewer, or for a fraction"
            )

    def settings(
        self,
        *,
        embedder: dict[str, Any] | None,
        evaluation_sha256: str | None,
        targets: dict[str, Any] | None,
        shortfall: int,
    ) -> dict[str, Any]:
        """What was asked, as plain data for a record.

        Args:
            embedder: How the encoder that near-duplicates are told by describes itself; None where none is used.
            evaluation_sha256: Of the evaluation texts, of which a record tells the number only.
            targets: Number, digest and origin of the targets, and what tells nearness to them; None without targets.
            shortfall: How many rows fewer than asked for were left.
        """
        quota, texts = self.per_group, self.exclude_contaminated
        return {
            "top_k": self.top_k,
            "fraction": self.fraction,
            "threshold": self.threshold,
            "per_group": None if quota is None else {"column": quota[0], "quota": int(quota[1])},
            "near_duplicates": self.near_duplicates,
            "embedder": embedder,
            "exclude_contaminated": None if texts is None else len(texts),
            "evaluation_sha256": evaluation_sha256,
            "targets": targets,
            "seed": self.seed,
            "shortfall": shortfall,
        }


def _check_quota(per_group: Any) -> None:
    if not (isinstance(per_group, tuple | list) and len(per_group) == 2):
        raise SelectionError(f"per_group={per_group!r}; give a column and a quota: ('category', 100)")
    column, quota = per_group
    if not _is_count(quota):
        raise SelectionError(f"a quota of {quota!r} per {column!r}; it must be a whole number, 1 or more")


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
