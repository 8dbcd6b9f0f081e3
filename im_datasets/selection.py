"""Scored dataset → Selection(kept, dropped), every row with its rank and every dropped row with its reason."""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset


@dataclass(frozen=True)
class Selection:
    """The two sides of a selection.

    Attributes:
        kept: The chosen rows, best first; all columns of the scored dataset plus ``im_row`` (index in the
            source) and ``im_rank`` (1 = best of all rows).
        dropped: The others in rank order, with ``im_row``, ``im_rank`` and ``im_reason``.
        settings: What was asked: ``top_k``, ``fraction``, ``threshold``, ``per_group``, ``near_duplicates``,
            ``exclude_contaminated`` (number of evaluation texts), ``seed``.
        cut: The log loss of the worst kept row; None when nothing is kept.
        reasons: Drop reason → number of rows, most frequent first.
    """

    kept: Dataset
    dropped: Dataset
    settings: dict[str, Any] = field(default_factory=dict)
    cut: float | None = None
    reasons: dict[str, int] = field(default_factory=dict)
