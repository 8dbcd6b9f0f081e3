"""Runs → one table to regress on: mean indicators against log loss, refused where it could not carry a fit."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.runs import Run
from im_datasets.common.errors import CalibrationError
from im_datasets.indicators.settings import portable

FloatArray = NDArray[np.float64]

SPARE = 4
"""Runs beyond the number of terms that a fit needs: intercept, variance, and two to be wrong about."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Observations:
    """What a fit sees of n runs, in the order of their ids, and p candidate columns.

    Attributes:
        runs: Ids of the runs, shape (n,).
        columns: Candidate indicator columns, shape (p,).
        means: Mean indicators, shape (n, p); finite, no column constant, none a combination of others.
        losses: Mean loss on the evaluation set, nats per response token, shape (n,); above 0.
        subset: Number of the subset that each run was trained on, from 0, shape (n,); runs with the same means and as
            many rows are copies of one subset, as with several seeds.
        evaluation: Name of the evaluation set.
        evaluation_digest: Digest of its texts; None where no run states it.
        base_model: What was finetuned, as the runs state it, without its device; empty where they do not.
        training: Settings that all runs share, the device among them where it is stated.
        varied: Training settings in which the runs differ, the seed left out.
        indicators: Indicator class → settings, as the runs state them.
        rows: Rows trained on, of the runs that state it.
    """

    runs: tuple[str, ...]
    columns: tuple[str, ...]
    means: FloatArray
    losses: FloatArray
    subset: NDArray[np.int64]
    evaluation: str
    evaluation_digest: str | None
    base_model: Mapping[str, Any]
    training: Mapping[str, Any]
    varied: tuple[str, ...]
    indicators: Mapping[str, Mapping[str, Any]]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def subsets(self) -> int:
        """Number of different subsets, at most n."""
        return int(self.subset.max()) + 1

    @property
    def log_losses(self) -> FloatArray:
        """The target of the regression, shape (n,)."""
        return np.log(self.losses)


def observe(
    runs: Iterable[Run],
    *,
    evaluation: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> Observations:
    """Line up runs for a regression.

    Args:
        runs: Finetuning runs of one base model, in any order.
        evaluation: Which loss to explain; None = the only one there is.
        columns: Candidate columns; None = every column that a run has.
        exclude: Columns that are no candidates.

    Raises:
        CalibrationError: Too few runs; several evaluation sets and none named; a loss or mean is missing or a loss
            is not above 0; a column is constant, or a combination of others; base models, indicator settings or
            the texts of the evaluation set differ.
    """
    table = sorted(runs, key=lambda run: run.run)
    if not table:
        raise CalibrationError("no calibration runs in the table; a run needs kind 'calibration'")
    name = _evaluation(table, evaluation)
    digest = _digest(table, name)
    base_model = _the_same("base_model", [portable(run.base_model) for run in table])
    indicators = _the_same("indicators", [portable(run.indicators) for run in table], _without_places)
    candidates = _candidates(table, columns, exclude)
    # Nine digits of its means tell a subset: no summing order changes these.
    keys = [(run.rows, *sorted(f"{name} {mean:.9g}" for name, mean in run.means.items())) for run in table]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    subset = np.array([numbers[key] for key in keys], dtype=np.int64)
    if (different := len(numbers)) < 1 + SPARE:
        on = f" on {different} different subsets" if different < len(table) else ""
        raise CalibrationError(f"{len(table)} runs{on} are too few: a rule of one term needs {1 + SPARE}, better 20")
    means = np.array([[run.means.get(column, math.nan) for column in candidates] for run in table], dtype=np.float64)
    _refuse_missing(table, candidates, means)
    _refuse_constant(candidates, means)
    _refuse_collinear(candidates, means)
    shared, varied = _training(table)
    return Observations(
        runs=tuple(run.run for run in table),
        columns=candidates,
        means=means,
        losses=_losses(table, name),
        subset=subset,
        evaluation=name,
        evaluation_digest=digest,
        base_model=base_model,
        training=shared,
        varied=varied,
        indicators=indicators,
        rows=tuple(run.rows for run in table if run.rows is not None),
    )


def _evaluation(runs: Sequence[Run], name: str | None) -> str:
    names = sorted({name for run in runs for name in run.losses})
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        problem = "several" if name is None else f"no loss {name!r}; there are"
        raise CalibrationError(f"{problem} evaluation sets: {', '.join(names)}; name one of them (--target)")
    return name


def _digest(runs: Sequence[Run], name: str) -> str | None:
    """Digest of the evaluation set's texts, which has to be the same in all runs that state it."""
    stated = {run.run: run.evaluations[name] for run in runs if name in run.evaluations}
    first = next(iter(stated), None)
    for run, digest in stated.items():
        if first is not None and digest != stated[first]:
            raise CalibrationError(
                f"{name!r} was one set of texts in {first!r} ({stated[first][:12]}) and another in {run!r} "
                f"({digest[:12]}), so that their losses cannot be set side by side; measure all runs on one, or split "
                "the table"
            )
    return None if first is None else stated[first]


def _candidates(runs: Sequence[Run], columns: Sequence[str] | None, exclude: Sequence[str]) -> tuple[str, ...]:
    measured = list(dict.fromkeys(column for run in runs for column in run.means))
    included = measured if columns is None else list(dict.fromkeys(columns))
    if unknown := [column for column in (*included, *exclude) if column not in measured]:
        raise CalibrationError(f"no run has {', '.join(unknown)}; there are: {', '.join(measured) or 'no columns'}")
    candidates = tuple(column for column in included if column not in exclude)
    if not candidates:
        raise CalibrationError("no candidate column is left; a rule needs at least one")
    return candidates


def _losses(runs: Sequence[Run], name: str) -> FloatArray:
    losses = np.array([run.losses.get(name, math.nan) for run in runs], dtype=np.float64)
    if missing := _ids(runs, np.isnan(losses)):
        raise CalibrationError(f"no loss on {name!r} in {missing}; measure it there, or remove these lines")
    if wrong := _ids(runs, losses <= 0):
        raise CalibrationError(
            f"the loss on {name!r} is not above 0 in {wrong}; the fit takes the logarithm of a mean negative "
            "log-likelihood in nats: give the loss itself, not its logarithm, and remove runs that saw the answers"
        )
    if np.ptp(losses) <= 1e-12 * losses.max():
        raise CalibrationError(f"the loss on {name!r} is {losses[0]:g} in every run; there is nothing to explain")
    return losses


def _refuse_missing(runs: Sequence[Run], columns: Sequence[str], means: FloatArray) -> None:
    missing = {column: _ids(runs, gaps) for column, gaps in zip(columns, np.isnan(means).T, strict=True) if gaps.any()}
    if missing:
        places = "; ".join(f"{column} in {ids}" for column, ids in missing.items())
        raise CalibrationError(
            f"no mean of {places}; measure it there, remove these runs, or leave the column out: {_exclude(missing)}"
        )


def _refuse_constant(columns: Sequence[str], means: FloatArray) -> None:
    spread = np.ptp(means, axis=0)
    # Sums of equal values may differ in their last digits.
    constant = [c for c, s, m in zip(columns, spread, np.abs(means).max(axis=0), strict=True) if s <= 1e-12 * m]
    if constant:
        raise CalibrationError(
            f"{', '.join(constant)} has the same mean in every run and explains nothing: {_exclude(constant)}"
        )


def _refuse_collinear(columns: Sequence[str], means: FloatArray) -> None:
    """Refuse a column that is a sum of multiples of others: its coefficient could be anything."""
    n, p = means.shape
    z = (means - means.mean(axis=0)) / means.std(axis=0)
    correlation = z.T @ z / n
    for i in range(p):
        for j in range(i):
            if abs(correlation[i, j]) > 1 - 1e-10:
                _collinear([columns[j], columns[i]])
    if p > n - 2:
        # So many columns are always collinear over so few runs; a fit takes a few of them.
        return
    # Pairs are named above; this finds what only three or more columns make up: the direction that hardly varies.
    _, sizes, directions = np.linalg.svd(z, full_matrices=False)
    if sizes[-1] <= 1e-6 * sizes[0]:
        _collinear([c for c, w in zip(columns, np.abs(directions[-1]), strict=True) if w > 1e-3])


def _exclude(columns: Iterable[str]) -> str:
    return " ".join(f"--exclude {column}" for column in columns)


def _collinear(names: Sequence[str]) -> None:
    raise CalibrationError(
        f"{' and '.join(names)} are perfectly collinear over these runs, so that no fit can tell their parts apart; "
        f"leave one out: --exclude {names[-1]}"
    )


def _the_same(
    name: str, values: Iterable[Mapping[str, Any]], by: Callable[[Mapping[str, Any]], Any] = dict
) -> Mapping[str, Any]:
    """A field that has to be the same in all runs that state it."""
    stated = [value for value in values if value]
    for value in stated:
        if by(value) != by(stated[0]):
            raise CalibrationError(
                f"the runs differ in {name}: {dict(stated[0])} and {dict(value)}; a rule is fitted for one, "
                "so split the table"
            )
    return stated[0] if stated else {}


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of indicators without the folders of models whose weights are stated: copies lie where they like."""
    return {
        name: _without_places(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != "model" or "weights" not in settings
    }


def _training(runs: Sequence[Run]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that all runs share, and the names of those in which they differ."""
    settings = [{**run.training, **{k: v for k, v in run.base_model.items() if k == "device"}} for run in runs]
    names = dict.fromkeys(name for each in settings for name in each if name != "seed")
    values = {name: [each.get(name) for each in settings] for name in names}
    shared = {name: each[0] for name, each in values.items() if all(value == each[0] for value in each)}
    return shared, tuple(name for name in names if name not in shared)


def _ids(runs: Sequence[Run], which: Any) -> str:
    """The marked runs, the first ones by name: an empty text where none is."""
    ids = [run.run for run, marked in zip(runs, which, strict=True) if marked]
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(repr(i) for i in ids[:_SHOWN]) + more
