"""Does a selection beat its baselines? Which arms are trained, and what came of setting them against each other.

Every arm trains on as many rows, with the same settings and the same seeds, and is measured on the same examples, so
that the selected rows are set against each baseline example by example. What comes out is shown whichever way it
points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from im_datasets.calibration.differences import Difference, paired_difference
from im_datasets.calibration.experiments.experiment import RANDOM, SELECTED, Experiment, Job
from im_datasets.calibration.experiments.pool import Pool, PoolRows, random_rows
from im_datasets.calibration.loss_plots import difference_figure
from im_datasets.calibration.saving import save_result
from im_datasets.common.errors import CalibrationError
from im_datasets.common.storage import write_text
from im_datasets.rules.linear import LinearRule

FULL, BASE = "full", "base model"


@dataclass(frozen=True)
class Baseline:
    """Rows chosen by one column alone.

    Attributes:
        column: The indicator column.
        highest: Whether its highest values are taken, or its lowest.
        below: Values from this on are passed over; None = none.
    """

    column: str
    highest: bool
    below: float | None = None

    def ranked(self, pool: Pool) -> PoolRows:
        """The candidates that it would take, best first, ties in row order."""
        values = pool.scores[self.column]
        order = np.argsort(-values if self.highest else values, kind="stable")
        return order if self.below is None else order[values[order] < self.below]


BASELINES = {
    "length": Baseline("im_output_length", highest=True),
    "mtld": Baseline("im_mtld", highest=True),
    "reward": Baseline("im_reward", highest=True),
    "ifd": Baseline("im_ifd", highest=True, below=1.0),
    "perplexity": Baseline("im_perplexity", highest=False),
}
"""Name → the column it goes by: longest responses, most diverse words, highest reward, highest IFD below 1 (as its
authors select), lowest perplexity."""


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        differences: Of every evaluation set, size and baseline.
        base_losses: Evaluation set → loss of the base model before any finetuning.
        seeds: The seeds.
        rule: The rule's name.
        notes: What a reader must know.
        facts: Base model, training, datasets and what was left out of them, as plain data.
    """

    differences: tuple[Difference, ...]
    base_losses: Mapping[str, float]
    seeds: tuple[int, ...]
    rule: str
    notes: tuple[str, ...]
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with each difference's win rate and verdict."""
        lines = [{**asdict(d), "win_rate": d.win_rate, "verdict": d.verdict} for d in self.differences]
        return {**asdict(self), "differences": lines}

    def table(self) -> str:
        """A Markdown table."""
        head = (
            "| evaluation | rows | against | loss, selected | loss, baseline | difference (95 % interval) "
            "| wins–ties–losses | win rate (95 % interval) | selected is |\n|---|---:|---|---:|---:|---|---|---|---|\n"
        )
        return head + "".join(
            f"| {d.evaluation} | {d.size:,} | {d.baseline} | {d.selected_loss:.4f} | {d.baseline_loss:.4f} "
            f"| {d.difference:+.4f} ({d.low:+.4f} to {d.high:+.4f}) | {d.wins}–{d.ties}–{d.losses} "
            f"| {d.win_rate:.3f} ({d.win_low:.3f} to {d.win_high:.3f}) | {d.verdict} |\n"
            for d in self.differences
        )

    def save(self, folder: str | Path) -> None:
        """Write ``comparison.json``, ``comparison.md`` and the figure ``comparison.png`` and ``.svg``."""
        path = Path(folder) / "comparison"
        notes = "".join(f"- {note}\n" for note in self.notes)
        write_text(path.with_suffix(".md"), f"{self.table()}\n{notes}")
        save_result(path, self.to_dict(), difference_figure(self.differences))


def compare(
    experiment: Experiment,
    rule: LinearRule,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    baselines: Sequence[str] | None = None,
) -> Comparison:
    """Set the rows that a rule selects against baselines of the same size, and against all rows.

    Args:
        experiment: Candidates, base model, training and evaluation sets.
        rule: Whose lowest predictions are selected.
        sizes: Rows to select.
        seeds: Each arm is trained once with each; random rows are drawn anew with each.
        baselines: ``"random"``, ``"full"`` and names of ``BASELINES``; None takes all whose column is there.

    Returns:
        The differences. An interval holds the noise of seeds and of evaluation examples, that of a win rate only
        the latter; the noise of selecting from this pool and no other none holds.

    Raises:
        CalibrationError: A size is out of range, a baseline unknown or without its column, or no seed is given.
        RuleError: The pool lacks a column of the rule.
    """
    pool, arms = experiment.pool, _baselines(experiment.pool, baselines)
    _check(pool, sizes, seeds)
    ranked = {SELECTED: pool.ranked(rule)} | {arm: BASELINES[arm].ranked(pool) for arm in arms if arm in BASELINES}
    # Without rows a job measures the base model as it is.
    jobs: dict[tuple[str, int, int], Job] = {(BASE, 0, 0): Job("compare", "base", np.empty(0, dtype=np.int64))}
    for seed in seeds:
        for size in sizes:
            for arm in (SELECTED, *arms):
                rows = _rows(pool, arm, ranked, size, seed)
                jobs[arm, size, seed] = Job("compare", arm, rows, seed, {"size": size})
    # All at once, so that several processes have runs to share.
    runs = dict(zip(jobs, experiment.run(list(jobs.values())), strict=True))
    differences = [
        paired_difference(
            [runs[SELECTED, size, seed] for seed in seeds], [runs[arm, size, seed] for seed in seeds], name, size, arm
        )
        for name in (evaluation.name for evaluation in experiment.evaluations)
        for size in sizes
        for arm in arms
    ]
    return Comparison(
        tuple(differences),
        dict(runs[BASE, 0, 0].losses),
        tuple(seeds),
        rule.name,
        _notes(pool, ranked, sizes, seeds),
        {
            "rule": rule.to_dict(),
            "base_model": experiment.base.describe(),
            "training": experiment.training.to_dict(),
            "candidates": len(pool),
            "sources": pool.composition(np.arange(len(pool))),
            "left_out": pool.left_out,
            "selected_sources": {size: pool.composition(ranked[SELECTED][:size]) for size in sizes},
        },
    )


def _baselines(pool: Pool, names: Sequence[str] | None) -> list[str]:
    """Names of baselines, each checked, each once."""
    scored = [RANDOM, FULL, *(name for name, baseline in BASELINES.items() if baseline.column in pool.scores)]
    if names is None:
        return scored
    for name in names:
        if name not in {RANDOM, FULL, *BASELINES}:
            raise CalibrationError(f"baseline {name!r} is unknown; known: {', '.join([RANDOM, FULL, *BASELINES])}")
        if name not in scored:
            raise CalibrationError(
                f"baseline {name!r} needs {BASELINES[name].column}, which was not scored; name its model, or leave "
                "the baseline out"
            )
    return list(dict.fromkeys(names))


def _check(pool: Pool, sizes: Sequence[int], seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise CalibrationError(f"seeds={list(seeds)}; give at least one, each once")
    for size in sizes:
        if not 1 <= size < len(pool):
            raise CalibrationError(f"size={size}; it must be from 1 to {len(pool) - 1}, as there are {len(pool)} rows")
    if not sizes:
        raise CalibrationError("no size to compare at; give at least one number of rows")


def _rows(pool: Pool, arm: str, ranked: Mapping[str, PoolRows], size: int, seed: int) -> PoolRows:
    if arm == FULL:
        return np.arange(len(pool))
    if arm == RANDOM:
        return random_rows(pool, size, seed)
    if len(ranked[arm]) < size:
        raise CalibrationError(f"baseline {arm!r} has {len(ranked[arm])} rows to choose from, fewer than {size}")
    return ranked[arm][:size]


def _notes(pool: Pool, ranked: Mapping[str, PoolRows], sizes: Sequence[int], seeds: Sequence[int]) -> tuple[str, ...]:
    notes = [
        f"Each arm was trained with {len(seeds)} seed{'s' * (len(seeds) > 1)}; intervals are 95 %, one by one: of "
        "many comparisons some err by chance.",
        "A win rate's interval holds the noise of evaluation examples, not that of seeds.",
        "Equal epochs: the full dataset is trained for more steps than the selections.",
    ]
    if len(seeds) < 5:
        notes.append("Fewer than five seeds: read the intervals with caution.")
    for size in sizes:
        selected = set(ranked[SELECTED][:size].tolist())
        for arm, rows in ranked.items():
            shared = len(selected.intersection(rows[:size].tolist())) / size
            if arm != SELECTED and shared > 0.5:
                notes.append(f"At {size} rows, {shared:.0%} of the selected rows are the {arm} baseline's too.")
        if size > len(pool) / 2:
            notes.append(f"{size} rows are more than half of all: selections can differ little.")
    return tuple(notes)
