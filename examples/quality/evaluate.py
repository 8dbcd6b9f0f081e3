"""What the head ranks right, and what "longer is better" would: on spoiled answers and on preferences.

Every figure stands beside the one of length alone, and beside the one on the pairs where length misleads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Figures = dict[str, Any]


def compare(better: NDArray[np.float64], worse: NDArray[np.float64], longer: NDArray[np.float64]) -> Figures:
    """How often the better of a pair scores higher.

    Args:
        better: Scores of the better answers, shape (n,).
        worse: Scores of the worse ones, shape (n,).
        longer: Length of the better minus length of the worse answer, shape (n,).

    Returns:
        ``pairs``; ``accuracy`` (ties count half); ``length_accuracy`` of "longer is better"; and the number and
        accuracy of the pairs whose longer answer is the worse, and of those whose longer answer is the better.
    """
    right = (np.sign(better - worse) + 1) / 2
    return {
        "pairs": len(right),
        "accuracy": _mean(right),
        "length_accuracy": _mean((np.sign(longer) + 1) / 2),
        "longer_is_worse": {"pairs": int((longer < 0).sum()), "accuracy": _mean(right[longer < 0])},
        "longer_is_better": {"pairs": int((longer > 0).sum()), "accuracy": _mean(right[longer > 0])},
    }


def auc(better: NDArray[np.float64], worse: NDArray[np.float64]) -> float:
    """The chance that a better answer of any row scores above a worse one of any row, ties counted half."""
    order = np.sort(worse)
    below = np.searchsorted(order, better, "left") + np.searchsorted(order, better, "right")
    return round(float(below.mean() / 2 / len(worse)), 4)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, ties in order of appearance."""
    ranks = [np.argsort(np.argsort(np.asarray(x), kind="stable"), kind="stable") for x in (a, b)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 4)


def _mean(values: NDArray[np.float64]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
