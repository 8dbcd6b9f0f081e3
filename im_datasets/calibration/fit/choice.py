"""Which columns a rule should have: every subset, or forward steps, by a named criterion.

All subsets of one size are solved at once from the correlation matrix, so that ten thousand of them take some
hundredths of a second and the choice can be repeated in every fold and every resample.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
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

MOST_SUBSETS = 20_000
"""Beyond this many subsets, ``all-subsets`` is refused."""

_CHUNK = 256


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
    if method == "none":
        everything = tuple(range(p))
        value = float(measure(x, y, np.array([everything]), criterion)[0])
        return Choice(everything, value, 1, {p: value})
    return _every_subset(x, y, criterion, most) if method == "all-subsets" else _forward(x, y, criterion, most)


def number_of_subsets(p: int, most: int) -> int:
    """How many non-empty subsets of p columns have at most so many.

    >>> number_of_subsets(4, 2)
    10
    """
    return sum(math.comb(p, size) for size in range(1, min(p, most) + 1))


def _every_subset(x: FloatArray, y: FloatArray, criterion: Criterion, most: int) -> Choice:
    p = x.shape[1]
    if (count := number_of_subsets(p, most)) > MOST_SUBSETS:
        raise CalibrationError(
            f"{p} columns have {count:,} subsets of up to {most}; at most {MOST_SUBSETS:,} are searched: name fewer "
            "columns, lower the number of terms (--max-terms), or go by steps (--choose stepwise)"
        )
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    for size in range(1, min(p, most) + 1):
        for subsets in _chunks(p, size):
            values = measure(x, y, subsets, criterion)
            at = int(np.argmax(values) if _higher(criterion) else np.argmin(values))
            found = (float(values[at]), tuple(int(i) for i in subsets[at]))
            if size not in best or _better(criterion, found[0], best[size][0]):
                best[size] = found
    return _best(best, criterion, count)


def _forward(x: FloatArray, y: FloatArray, criterion: Criterion, most: int) -> Choice:
    """Add the best column while the criterion improves."""
    p = x.shape[1]
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    chosen: tuple[int, ...] = ()
    looked_at = 0
    while len(chosen) < min(p, most):
        trials = [tuple(sorted((*chosen, i))) for i in range(p) if i not in chosen]
        looked_at += len(trials)
        values = measure(x, y, np.array(trials), criterion)
        at = int(np.argmax(values) if _higher(criterion) else np.argmin(values))
        if chosen and not _better(criterion, float(values[at]), best[len(chosen)][0]):
            break
        chosen = trials[at]
        best[len(chosen)] = (float(values[at]), chosen)
    return _best(best, criterion, looked_at)


def _best(best: dict[int, tuple[float, tuple[int, ...]]], criterion: Criterion, looked_at: int) -> Choice:
    value, columns = next(iter(best.values()))
    for found, subset in best.values():
        if _better(criterion, found, value):
            value, columns = found, subset
    return Choice(columns, value, looked_at, {size: found for size, (found, _) in best.items()})


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
    errors = target - (coefficients[:, None, :] @ columns)[:, 0]
    return np.asarray(((errors / np.maximum(1 - leverage, 1e-9)) ** 2).sum(axis=1))


def _chunks(p: int, size: int) -> Iterator[NDArray[np.intp]]:
    subsets = combinations(range(p), size)
    while chunk := list(islice(subsets, _CHUNK)):
        yield np.array(chunk, dtype=np.intp)


def _higher(criterion: Criterion) -> bool:
    return criterion in {"adjusted_r2", "cv_r2"}


def _better(criterion: Criterion, value: float, than: float) -> bool:
    return value > than if _higher(criterion) else value < than


def named(columns: Sequence[str], choice: Choice) -> tuple[str, ...]:
    """The names of the chosen columns."""
    return tuple(columns[i] for i in choice.columns)
