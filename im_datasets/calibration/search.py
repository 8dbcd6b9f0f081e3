"""How many rows to keep: BlendSearch over the subset size, each trial a finetuning on the first n rows by a rule.

FLAML's BlendSearch starts small, where a trial is cheap, and takes the rows of a trial as its cost, so that its
proposals depend on losses alone: asked again, it proposes the same sizes, and finds their runs in the table. Beside
its trials stands a curve over sizes spread evenly in logarithm, of selected and of random rows, in which a loss that
falls, rises and falls again would be seen.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import import_module
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from im_datasets.calibration.experiments.experiment import RANDOM, SELECTED, TABLE, Experiment, Job, complete
from im_datasets.calibration.experiments.pool import Pool, PoolRows, random_rows
from im_datasets.calibration.loss_plots import size_curve_figure
from im_datasets.calibration.runs import Run
from im_datasets.calibration.saving import save_result
from im_datasets.common.errors import CalibrationError, MissingExtraError
from im_datasets.rules.linear import LinearRule

OWN = "objective"
"""The name of the loss of an objective of the user's own."""

Objective = Callable[[Dataset, int], float]
"""From the first n rows by the rule (``instruction``, ``response`` and the indicator columns) and a seed to what is
to be made small."""

Measure = Callable[[Sequence[Job]], Sequence[Run]]


@dataclass(frozen=True)
class Sizes:
    """Which sizes to look at, and how hard.

    Attributes:
        low: The smallest.
        high: The largest; None is the smaller of 10,000 and all candidates.
        trials: Sizes that BlendSearch tries.
        points: Sizes of the curve, even in logarithm from low to high.
        seeds: Trainings per size and arm; their mean counts.
        search_seed: BlendSearch's own.

    Raises:
        CalibrationError: A number is out of range.
    """

    low: int = 512
    high: int | None = None
    trials: int = 16
    points: int = 6
    seeds: Sequence[int] = (0,)
    search_seed: int = 0

    def __post_init__(self) -> None:
        if self.low < 1 or self.trials < 1 or self.points < 2 or not self.seeds:
            raise CalibrationError(
                f"low={self.low}, trials={self.trials}, points={self.points}, seeds={list(self.seeds)}; at least one "
                "row, trial and seed, and two points"
            )

    def bounds(self, candidates: int) -> tuple[int, int]:
        """The smallest and largest size for a number of candidates.

        Raises:
            CalibrationError: Not low < high ≤ candidates.
        """
        high = min(10_000, candidates) if self.high is None else self.high
        if not self.low < high <= candidates:
            raise CalibrationError(f"sizes from {self.low} to {high} of {candidates} candidates; need low < high ≤ all")
        return self.low, high

    def grid(self, candidates: int) -> list[int]:
        """The sizes of the curve."""
        low, high = self.bounds(candidates)
        return sorted({round(size) for size in np.geomspace(low, high, self.points)})


@dataclass(frozen=True)
class Point:
    """What came of one size.

    Attributes:
        rows: The size.
        loss: Mean over seeds of the loss that is searched for; NaN where one of them has no finite loss.
        per_seed: Each seed's.
        losses: Evaluation set → mean over seeds, of all sets.
        trial: BlendSearch's number of it, from 0; None where only the curve asked for it.
    """

    rows: int
    loss: float
    per_seed: tuple[float, ...]
    losses: Mapping[str, float]
    trial: int | None = None


@dataclass(frozen=True)
class SizeSearch:
    """What came of a search.

    Attributes:
        best: The selected point of the lowest finite loss; of equal ones the smallest.
        selected: Every size that was tried with selected rows: trials in their order, then the curve's.
        random: The curve's sizes with random rows.
        target: The loss that was searched for.
        rule: The rule's name.
        notes: What a reader must know.
        facts: Base model, training, sizes and candidates, as plain data.
    """

    best: Point
    selected: tuple[Point, ...]
    random: tuple[Point, ...]
    target: str
    rule: str
    notes: tuple[str, ...]
    facts: Mapping[str, Any]

    def save(self, folder: str | Path) -> None:
        """Write ``size_search.json``, NaN as null, and the figure ``size_search.png`` and ``.svg``."""
        selected, random = ({p.rows: p.per_seed for p in points} for points in (self.selected, self.random))
        save_result(Path(folder) / "size_search", asdict(self), size_curve_figure(selected, random, self.best.rows))


def search_size(experiment: Experiment, rule: LinearRule, sizes: Sizes, *, target: str | None = None) -> SizeSearch:
    """Search the number of selected rows with the lowest loss after finetuning on them.

    A size at which a training diverges is noted and passed over.

    Args:
        experiment: Candidates, base model, training and evaluation sets; its table keeps every trial.
        rule: Whose lowest predictions come first.
        sizes: Where to look.
        target: The evaluation set whose loss is searched for; None is the first.

    Raises:
        CalibrationError: The bounds do not fit the candidates, the evaluation set is unknown, or no size of the
            curve has a finite loss.
        MissingExtraError: FLAML is not installed.
        RuleError: The pool lacks a column of the rule.
    """
    names = [evaluation.name for evaluation in experiment.evaluations]
    if target is not None and target not in names:
        raise CalibrationError(f"no evaluation set {target!r}; there are: {', '.join(names)}")
    facts = {"base_model": experiment.base.describe(), "training": experiment.training.to_dict()}
    return _search(experiment.pool, rule, sizes, experiment.run, target or names[0], facts)


def search_objective(
    objective: Objective,
    pool: Pool,
    rule: LinearRule,
    sizes: Sizes,
    *,
    folder: str | Path,
    name: str | None = None,
) -> SizeSearch:
    """Search the number of selected rows by an objective of the user's own.

    Args:
        objective: Called with the rows and the seed, once for each: what it gave is kept in the table. A size at
            which it gives no finite number is noted and passed over.
        pool: The candidates.
        rule: Whose lowest predictions come first.
        sizes: Where to look.
        folder: Where the table of runs is.
        name: What the objective is called in the table, where its values are found again; None is the function's
            own name with its module, ``module:function``. A changed objective wants another name or another folder.

    Raises:
        CalibrationError: The bounds do not fit the candidates, the objective has no name, or gives no finite number
            at any size of the curve.
        MissingExtraError: FLAML is not installed.
        RuleError: The pool lacks a column of the rule.
    """
    function = getattr(objective, "__qualname__", "")
    label = name or (function and f"{objective.__module__}:{function}")
    if not label or "<lambda>" in label:
        raise CalibrationError(f"{objective!r} has no name to keep its values under; pass name=")
    measure = _own(objective, label, pool, Path(folder) / TABLE)
    return _search(pool, rule, sizes, measure, OWN, {"objective": label})


def _search(
    pool: Pool, rule: LinearRule, sizes: Sizes, measure: Measure, target: str, facts: Mapping[str, Any]
) -> SizeSearch:
    ranked, (low, high), curve = pool.ranked(rule), sizes.bounds(len(pool)), sizes.grid(len(pool))

    def jobs(arm: str, size: int) -> list[Job]:
        rows = {seed: ranked[:size] if arm == SELECTED else random_rows(pool, size, seed) for seed in sizes.seeds}
        return [Job("search", arm, rows[seed], seed, {"size": size}) for seed in sizes.seeds]

    def point(arm: str, size: int, trial: int | None = None) -> Point:
        losses = [run.losses for run in measure(jobs(arm, size))]
        means = {name: float(np.mean([each[name] for each in losses])) for name in losses[0]}
        return Point(size, means[target], tuple(each[target] for each in losses), means, trial)

    # All at once, so that several processes have runs to share.
    measure([job for size in curve for arm in (SELECTED, RANDOM) for job in jobs(arm, size)])
    if not any(isfinite(point(SELECTED, size).loss) for size in curve):
        raise CalibrationError(
            f"no finite {target} loss at any of {', '.join(map(str, curve))} selected rows; a lower learning rate may "
            "help (pass a mended objective under another name: its values are kept)"
        )
    trials = list(blend_search(lambda size: point(SELECTED, size).loss, low, high, sizes))
    selected = [point(SELECTED, size, trial) for trial, size in enumerate(trials)]
    selected += [point(SELECTED, size) for size in curve if size not in trials]
    random = [point(RANDOM, size) for size in curve]
    return SizeSearch(
        best=min((p for p in selected if isfinite(p.loss)), key=lambda each: (each.loss, each.rows)),
        selected=tuple(selected),
        random=tuple(random),
        target=target,
        rule=rule.name,
        notes=_notes(sizes, selected, random),
        facts={
            **facts,
            "rule": rule.to_dict(),
            "candidates": len(pool),
            "left_out": dict(pool.left_out),
            "sizes": asdict(sizes) | {"low": low, "high": high, "seeds": list(sizes.seeds)},
        },
    )


def blend_search(loss_of: Callable[[int], float], low: int, high: int, sizes: Sizes) -> Iterator[int]:
    """The sizes that BlendSearch tries, each once, as it tries them.

    Args:
        loss_of: The loss at a size; may answer from what it knows. One that is not finite is told to BlendSearch
            as a failed trial.
        low: The smallest size, where the search starts.
        high: The largest.
        sizes: Number of trials and the seed.

    Raises:
        MissingExtraError: FLAML is not installed.
    """
    with _flaml() as (blend, tune):
        search = blend(
            metric="loss",
            mode="min",
            space={"rows": tune.lograndint(low, high + 1)},
            # Where the search starts, and why small sizes come first: they are cheap to try.
            low_cost_partial_config={"rows": low},
            num_samples=50 * sizes.trials,
            cost_attr="cost",
            seed=sizes.search_seed,
        )
        tried: list[int] = []
        # It may propose nothing for a while, or a size again: without an end to that it could go on for ever.
        for attempt in range(50 * sizes.trials):
            if len(tried) == min(sizes.trials, high - low + 1):
                return
            config = search.suggest(f"trial-{attempt}")
            if config is None:
                continue
            size = min(high, int(config["rows"]))
            loss = loss_of(size)
            result = {"loss": loss, "cost": size, "config": config} if isfinite(loss) else None
            search.on_trial_complete(f"trial-{attempt}", result, error=result is None)
            if size not in tried:
                tried.append(size)
                yield size


@contextmanager
def _flaml() -> Iterator[tuple[Any, Any]]:
    """BlendSearch and the search spaces, without what they say of themselves."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna: Any = import_module("optuna")
            flaml: Any = import_module("flaml")
    except ImportError as error:
        raise MissingExtraError(
            "the size search needs FLAML, which is not installed; run: pip install im-datasets[calibrate]"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"optuna|flaml")
        yield flaml.BlendSearch, flaml.tune


def _own(objective: Objective, label: str, pool: Pool, table: Path) -> Measure:
    """Runs by an objective of the user's own, kept in the table all the same."""

    def make(name: str, job: Job) -> Run:
        value = float(objective(rows_of(pool, job.rows), job.seed))
        subset = {"label": job.label, **job.subset}
        means, details = pool.means(job.rows), {"objective": label}
        losses = {OWN: value if isfinite(value) else nan}
        return Run(name, means, losses, "search", subset, job.seed, len(job.rows), details=details)

    def identify(job: Job) -> str:
        digest = sha256(f"{label} {pool.digest(job.rows)}".encode()).hexdigest()[:12]
        return f"{job.kind}-{job.label}-n{len(job.rows)}-s{job.seed}-own-{digest}"

    def measure(jobs: Sequence[Job]) -> list[Run]:
        done = complete({identify(job): job for job in jobs}, make, table)
        return [done[identify(job)] for job in jobs]

    return measure


def rows_of(pool: Pool, rows: PoolRows) -> Dataset:
    """Candidates as a dataset: ``instruction``, ``response`` and the indicator columns."""
    pairs = pool.pairs(rows)
    scores = {name: values[rows] for name, values in pool.scores.items()}
    return Dataset.from_dict({"instruction": pairs.instructions, "response": pairs.responses, **scores})


def _notes(sizes: Sizes, selected: Sequence[Point], random: Sequence[Point]) -> tuple[str, ...]:
    notes = ["The best of many trials looks better than it is; its loss on an evaluation set not searched for is fair."]
    if len(sizes.seeds) < 3:
        notes.append("Few seeds for each size: a rise or fall no larger than the spread between sizes may be noise.")
    for arm, points in ((SELECTED, selected), (RANDOM, random)):
        if lost := sorted(each.rows for each in points if not isfinite(each.loss)):
            notes.append(f"At {', '.join(map(str, lost))} {arm} rows there is no finite loss: passed over.")
    return tuple(notes)
