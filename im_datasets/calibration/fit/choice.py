"""Which columns a rule should have: every subset, or forward steps, by a named criterion.

All subsets of one size are solved at once from the correlation matrix, so that ten thousand of them take some
hundredths of a second and the choice can be repeated in every fold and every resample.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from operator import itemgetter
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.fit.observations import FloatArray
from im_datasets.common.errors import CalibrationError

Criterion = Literal["aicc", "bic", "adjusted_r2", "cv_r2"]
"""AICc, BIC, adjusted R², or leave-one-out cross-validated R²."""

Method = Literal["all-subsets", "stepwise", "none"]
"""Look at every subset; add the best column while the criterion improves; or take all columns as they are."""

CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
METHODS: tuple[Method, ...] = get_args(Method)

HIGHER_IS_BETTER: frozenset[Criterion] = frozenset({"adjusted_r2", "cv_r2"})

MOST_SUBSETS = 20_000
"""Beyond this many subsets, ``all-subsets`` is refused."""

_CHUNK = 256
"""Models solved at once: bounds the memory that their leverages take."""

Model = tuple[float, tuple[int, ...]]
"""The criterion's value, its sign turned so that more is better, and the columns."""

BestOf = Callable[[Sequence[tuple[int, ...]]], Model]


@dataclass(frozen=True)
class Choice:
    """The chosen columns and how they were found.

    Attributes:
        columns: Indices of the chosen columns, ascending.
        value: The criterion's value of the choice.
        looked_at: Models that were compared.
        best_by_size: Number of terms → the best value of that size.
    """

    columns: tuple[int, ...]
    value: float
    looked_at: int
    best_by_size: dict[int, float]


def choose(x: FloatArray, y: FloatArray, *, criterion: Criterion, method: Method, most: int) -> Choice:
    """Choose columns.

    Args:
        x: Candidates, shape (n, p).
        y: Target, shape (n,).
        criterion: What the best model is best in.
        method: Which models are looked at.
        most: The most terms.

    Raises:
        CalibrationError: More subsets than ``MOST_SUBSETS``.
    """
    p = x.shape[1]
    sign = 1 if criterion in HIGHER_IS_BETTER else -1

    def best_of(subsets: Sequence[tuple[int, ...]]) -> Model:
        values = sign * measure(x, y, np.array(subsets), criterion)
        place = int(np.argmax(values))
        return float(values[place]), subsets[place]

    if method == "none":
        best, looked_at = {p: best_of([tuple(range(p))])}, 1
    elif method == "all-subsets":
        best, looked_at = _every_subset(p, min(p, most), best_of)
    else:
        best, looked_at = _forward(p, min(p, most), best_of)
    # Of equal ones the first, which has the fewest terms.
    value, columns = max(best.values(), key=itemgetter(0))
    return Choice(columns, sign * value, looked_at, {size: sign * value for size, (value, _) in best.items()})


def number_of_subsets(p: int, most: int) -> int:
    """How many non-empty subsets of p columns have at most so many.

    >>> number_of_subsets(4, 2)
    10
    """
    return sum(math.comb(p, size) for size in range(1, min(p, most) + 1))


def _every_subset(p: int, most: int, best_of: BestOf) -> tuple[dict[int, Model], int]:
    """The best model of each size, and how many were compared."""
    if (count := number_of_subsets(p, most)) > MOST_SUBSETS:
        raise CalibrationError(
            f"{p} columns have {count:,} subsets of up to {most}; at most {MOST_SUBSETS:,} are searched: name fewer "
            "columns, lower the number of terms (--max-terms), or go by steps (--choose stepwise)"
        )
    best: dict[int, Model] = {}
    for size in range(1, most + 1):
        subsets = combinations(range(p), size)
        while chunk := list(islice(subsets, _CHUNK)):
            model = best_of(chunk)
            if size not in best or model[0] > best[size][0]:
                best[size] = model
    return best, count


def _forward(p: int, most: int, best_of: BestOf) -> tuple[dict[int, Model], int]:
    """Add the best column while the criterion improves; the best model of each size, and how many were compared."""
    best: dict[int, Model] = {}
    columns: tuple[int, ...] = ()
    looked_at = 0
    while len(columns) < most:
        trials = [tuple(sorted((*columns, i))) for i in range(p) if i not in columns]
        looked_at += len(trials)
        step = best_of(trials)
        if columns and step[0] <= best[len(columns)][0]:
            break
        columns = step[1]
        best[len(columns)] = step
    return best, looked_at


def measure(x: FloatArray, y: FloatArray, subsets: NDArray[np.intp], criterion: Criterion) -> FloatArray:
    """A criterion of many least-squares models of one size.

    Args:
        x: Columns, shape (n, p).
        y: Target, shape (n,).
        subsets: Column indices, shape (m, k).
        criterion: AICc and BIC count intercept and variance as parameters, and are lower for better models;
            adjusted and cross-validated R² are higher for better ones.

    Returns:
        Shape (m,).
    """
    n, k = len(y), subsets.shape[1]
    z, target = standardise(x), y - y.mean()
    total = float(target @ target)
    coefficients = _solve(z, target, subsets)
    if criterion == "cv_r2":
        return np.asarray(1 - _press(z, target, subsets, coefficients) / (total * (n / (n - 1)) ** 2))
    explained = np.einsum("mk,mk->m", coefficients, (z.T @ target)[subsets])
    # A perfect fit has no residual, and its logarithm would be infinite.
    residual = np.maximum(total - explained, 1e-15 * total)
    if criterion == "adjusted_r2":
        return np.asarray(1 - residual / total * (n - 1) / (n - k - 1))
    parameters = k + 2
    fit = n * (np.log(2 * np.pi * residual / n) + 1)
    if criterion == "bic":
        return np.asarray(fit + parameters * math.log(n))
    spare = n - parameters - 1
    penalty = 2 * parameters + 2 * parameters * (parameters + 1) / spare if spare > 0 else math.inf
    return np.asarray(fit + penalty)


def standardise(x: FloatArray) -> FloatArray:
    """Columns less their mean, over their standard deviation; a constant column is all 0. Shape as given."""
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _solve(z: FloatArray, target: FloatArray, subsets: NDArray[np.intp]) -> FloatArray:
    gram = (z.T @ z)[subsets[:, :, None], subsets[:, None, :]]
    right = (z.T @ target)[subsets][..., None]
    try:
        # A resample may leave a column constant, or two equal; then the pseudo-inverse gives the smallest solution.
        return np.asarray(np.linalg.solve(gram, right)[..., 0])
    except np.linalg.LinAlgError:
        return np.asarray((np.linalg.pinv(gram, hermitian=True) @ right)[..., 0])


def _press(z: FloatArray, target: FloatArray, subsets: NDArray[np.intp], coefficients: FloatArray) -> FloatArray:
    """Sum of squared leave-one-out errors of each model, from its leverages."""
    columns = z.T[subsets]
    gram = (z.T @ z)[subsets[:, :, None], subsets[:, None, :]]
    try:
        inverse = np.linalg.inv(gram)
    except np.linalg.LinAlgError:
        inverse = np.linalg.pinv(gram, hermitian=True)
    leverage = 1 / len(target) + ((inverse @ columns) * columns).sum(axis=1)
    # A run that alone holds a coefficient has a leverage of 1: its error without it has no bound.
    errors = target - (coefficients[:, None, :] @ columns)[:, 0]
    return np.asarray(((errors / np.maximum(1 - leverage, 1e-9)) ** 2).sum(axis=1))
