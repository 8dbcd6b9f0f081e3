"""Does a selection beat its baselines? Finetuning runs paired over seeds, differences with intervals, win rates.

Every arm trains on as many rows, with the same settings and the same seeds, and is measured on the same examples, so
that the selected rows are set against each baseline example by example. What comes out is shown whichever way it
points.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.experiments.experiment import Experiment, Job
from im_datasets.calibration.experiments.pool import Pool, Rows
from im_datasets.calibration.figures import difference_figure, save_figure
from im_datasets.calibration.runs import Run
from im_datasets.common.errors import CalibrationError
from im_datasets.rules.linear import LinearRule

SELECTED, RANDOM, FULL, BASE = "selected", "random", "full", "base model"

LEVEL = 0.95
"""Of every interval."""


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

    def ranked(self, pool: Pool) -> Rows:
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
class Difference:
    """The selected rows against one baseline, on one evaluation set.

    Attributes:
        evaluation: The set.
        size: Rows selected.
        baseline: What the selected rows are set against.
        baseline_rows: Rows it trained on.
        selected_loss: Mean over seeds, nats per response token.
        baseline_loss: The same of the baseline.
        difference: Selected less baseline: below 0, the selected rows are better.
        low: Lower end of its interval.
        high: Upper end; both NaN where it was not measured.
        per_seed: The difference of each seed.
        wins: Examples on which the selected rows lose less, on average over seeds.
        ties: Examples on which both lose the same.
        losses: Examples on which the baseline loses less; all three 0 where a loss was not measured.
        win_low: Lower end of the interval of the win rate, which holds the noise of examples only.
        win_high: Upper end.
    """

    evaluation: str
    size: int
    baseline: str
    baseline_rows: int
    selected_loss: float
    baseline_loss: float
    difference: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    wins: int
    ties: int
    losses: int
    win_low: float
    win_high: float

    @property
    def win_rate(self) -> float:
        """Share of the examples that are won, ties counted half; NaN where none was measured."""
        examples = self.wins + self.ties + self.losses
        return (self.wins + self.ties / 2) / examples if examples else float("nan")

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"``, or ``"no difference shown"`` where the interval holds zero."""
        if not np.isfinite([self.low, self.high]).all():
            return "not measured"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "no difference shown"


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
        return head + "".join(_line(difference) for difference in self.differences)

    def save(self, folder: str | Path) -> None:
        """Write ``comparison.json``, ``comparison.md`` and the figure ``comparison.png`` and ``.svg``."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps(without_nan(self.to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
        (target / "comparison.json").write_text(text + "\n", encoding="utf-8")
        notes = "".join(f"- {note}\n" for note in self.notes)
        (target / "comparison.md").write_text(f"{self.table()}\n{notes}", encoding="utf-8")
        save_figure(difference_figure(self.differences), target / "comparison")


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
    pool, chosen = experiment.pool, _chosen(experiment.pool, baselines)
    _check(pool, sizes, seeds)
    ranked = {SELECTED: pool.ranked(rule)} | {n: BASELINES[n].ranked(pool) for n in chosen if n in BASELINES}
    jobs: dict[tuple[str, int, int], Job] = {(BASE, 0, 0): Job("compare", "base", np.empty(0, dtype=np.int64))}
    for seed in seeds:
        for size in sizes:
            for arm in (SELECTED, *chosen):
                rows = _rows(pool, arm, ranked, size, seed)
                jobs[arm, size, seed] = Job("compare", arm, rows, seed, {"size": size})
    runs = dict(zip(jobs, experiment.run(list(jobs.values())), strict=True))
    differences = [
        paired_difference(
            [runs[SELECTED, size, seed] for seed in seeds], [runs[arm, size, seed] for seed in seeds], name, size, arm
        )
        for name in (evaluation.name for evaluation in experiment.evaluations)
        for size in sizes
        for arm in chosen
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


def paired_difference(
    selected: Sequence[Run], baseline: Sequence[Run], evaluation: str, size: int, name: str
) -> Difference:
    """Set two arms against each other, seed by seed and example by example.

    Args:
        selected: One run per seed.
        baseline: The runs of the same seeds, in the same order.
        evaluation: The evaluation set.
        size: Rows selected.
        name: The baseline.

    Returns:
        The difference of the losses in nats per response token, with its interval; NaN and no example counted where
        a run has no finite loss, or the arms were not measured on the same tokens.
    """
    ours, tokens = _examples(selected, evaluation)
    theirs, other = _examples(baseline, evaluation)
    gaps = ours - theirs if np.array_equal(tokens, other) else np.full_like(ours, np.nan)
    total = int(tokens.sum()) or float("nan")
    means = gaps.mean(axis=0)
    low, high = difference_interval(gaps, tokens)
    wins, ties, losses = _outcomes(means)
    win_low, win_high = win_interval(wins, ties, losses)
    return Difference(
        evaluation=evaluation,
        size=size,
        baseline=name,
        baseline_rows=int(baseline[0].rows or 0),
        selected_loss=float(ours.sum(axis=1).mean() / total),
        baseline_loss=float(theirs.sum(axis=1).mean() / (int(other.sum()) or float("nan"))),
        difference=float(means.sum() / total),
        low=low,
        high=high,
        per_seed=tuple((gaps.sum(axis=1) / total).tolist()),
        wins=wins,
        ties=ties,
        losses=losses,
        win_low=win_low,
        win_high=win_high,
    )


def difference_interval(gaps: NDArray[np.float64], tokens: NDArray[np.int64]) -> tuple[float, float]:
    """Interval of a paired difference per token, over the noise of seeds and of examples.

    Both vary the difference: the variance of its mean over seeds and that over examples (of a ratio of sums,
    linearised) are estimated apart and added, and Student's quantile takes the degrees of freedom of the sum, as in
    Welch's test: a few seeds widen the interval as far as they matter, no further. Noise of a seed on one example
    is in both variances, so that the sum errs on the wide side, by a factor below sqrt(2). Where two seeds make most
    of the noise the interval errs on the narrow side: simulated, it covers 87 to 90 %. With one seed it holds the
    noise of examples only.

    Args:
        gaps: Difference of the summed negative log-likelihoods, shape (seeds, examples).
        tokens: Tokens of each example, shape (examples,), above 0.

    Returns:
        Low and high in nats per token; NaN where a gap is not finite, or there are fewer than two examples.

    Source: Satterthwaite (1946), "An Approximate Distribution of Estimates of Variance Components"; Cochran,
    "Sampling Techniques" (1977), section 2.11, for the ratio.
    """
    if gaps.shape[1] < 2 or not np.isfinite(gaps).all():
        return float("nan"), float("nan")
    from scipy.stats import t

    per_seed = gaps.sum(axis=1) / tokens.sum()
    difference = float(per_seed.mean())
    residuals = (gaps.mean(axis=0) - difference * tokens) / tokens.mean()
    parts = [values for values in (residuals, per_seed) if len(values) > 1]
    variances = [float(values.var(ddof=1)) / len(values) for values in parts]
    if not (variance := sum(variances)):
        return difference, difference
    freedom = variance**2 / sum(each**2 / (len(values) - 1) for each, values in zip(variances, parts, strict=True))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return difference - half, difference + half


def win_interval(wins: int, ties: int, losses: int) -> tuple[float, float]:
    """Interval of a win rate over the noise of examples: Wilson's, which holds up where nearly all are won.

    A win is the sign of one example's mean over seeds. The rate is that of these trained models on further examples
    of the kind; what other seeds would give is no part of it: noise added before the sign is taken would pull the rate
    towards one half. A tie counts as half a win, which varies less than a win or a loss does, so that ties leave the
    interval wide enough.

    Returns:
        Low and high, from 0 to 1; NaN where there is no example.

    Source: Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference".

    Example:
        >>> low, high = win_interval(197, 0, 55)
        >>> round(low, 3), round(high, 3)
        (0.727, 0.828)
    """
    examples = wins + ties + losses
    if not examples:
        return float("nan"), float("nan")
    from scipy.stats import norm

    rate, share = (wins + ties / 2) / examples, float(norm.ppf((1 + LEVEL) / 2)) ** 2 / examples
    centre, half = rate + share / 2, (share * (rate * (1 - rate) + share / 4)) ** 0.5
    return max(0.0, (centre - half) / (1 + share)), min(1.0, (centre + half) / (1 + share))


def _outcomes(means: NDArray[np.float64]) -> tuple[int, int, int]:
    """Wins, ties and losses; none where any example was not measured, as the others would not stand for all."""
    if not np.isfinite(means).all():
        return 0, 0, 0
    # Sums are kept to a millionth of a nat.
    tie = 1e-6
    return int((means < -tie).sum()), int((np.abs(means) <= tie).sum()), int((means > tie).sum())


def _examples(runs: Sequence[Run], evaluation: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Summed losses, shape (seeds, examples), and tokens, shape (examples,), without examples of no tokens."""
    found = [run.details["examples"][evaluation] for run in runs]
    tokens = np.array(found[0]["tokens"], dtype=np.int64)
    sums = np.array([np.nan if nats is None else nats for each in found for nats in each["nats"]], dtype=np.float64)
    return sums.reshape(len(runs), len(tokens))[:, tokens > 0], tokens[tokens > 0]


def _chosen(pool: Pool, wanted: Sequence[str] | None) -> list[str]:
    there = [RANDOM, FULL, *(name for name, baseline in BASELINES.items() if baseline.column in pool.scores)]
    if wanted is None:
        return there
    for name in wanted:
        if name not in {RANDOM, FULL, *BASELINES}:
            raise CalibrationError(f"baseline {name!r} is unknown; known: {', '.join([RANDOM, FULL, *BASELINES])}")
        if name not in there:
            raise CalibrationError(
                f"baseline {name!r} needs {BASELINES[name].column}, which was not scored; name its model, or leave "
                "the baseline out"
            )
    return list(dict.fromkeys(wanted))


def _check(pool: Pool, sizes: Sequence[int], seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise CalibrationError(f"seeds={list(seeds)}; give at least one, each once")
    for size in sizes:
        if not 1 <= size < len(pool):
            raise CalibrationError(f"size={size}; it must be from 1 to {len(pool) - 1}, as there are {len(pool)} rows")
    if not sizes:
        raise CalibrationError("no size to compare at; give at least one number of rows")


def _rows(pool: Pool, arm: str, ranked: Mapping[str, Rows], size: int, seed: int) -> Rows:
    if arm == FULL:
        return np.arange(len(pool))
    if arm == RANDOM:
        return random_rows(pool, size, seed)
    if len(ranked[arm]) < size:
        raise CalibrationError(f"baseline {arm!r} has {len(ranked[arm])} rows to choose from, fewer than {size}")
    return ranked[arm][:size]


def random_rows(pool: Pool, size: int, seed: int) -> Rows:
    """Candidates drawn alike; a smaller draw of the same seed is part of a larger one."""
    return np.random.default_rng([seed, 1]).permutation(len(pool))[:size]


def _notes(pool: Pool, ranked: Mapping[str, Rows], sizes: Sequence[int], seeds: Sequence[int]) -> tuple[str, ...]:
    notes = [
        f"Each arm was trained with {len(seeds)} seed{'s' * (len(seeds) > 1)}; intervals are 95 %, one by one: of "
        "many comparisons some err by chance.",
        "A win rate's interval holds the noise of evaluation examples, not that of seeds.",
        "Equal epochs: the full dataset is trained for more steps than the selections.",
    ]
    if len(seeds) < 5:
        notes.append("Fewer than five seeds: read the intervals with caution.")
    for size in sizes:
        ours = set(ranked[SELECTED][:size].tolist())
        for arm, rows in ranked.items():
            shared = len(ours.intersection(rows[:size].tolist())) / size
            if arm != SELECTED and shared > 0.5:
                notes.append(f"At {size} rows, {shared:.0%} of the selected rows are the {arm} baseline's too.")
        if size > len(pool) / 2:
            notes.append(f"{size} rows are more than half of all: selections can differ little.")
    return tuple(notes)


def _line(each: Difference) -> str:
    return (
        f"| {each.evaluation} | {each.size:,} | {each.baseline} | {each.selected_loss:.4f} | {each.baseline_loss:.4f} "
        f"| {each.difference:+.4f} ({each.low:+.4f} to {each.high:+.4f}) | {each.wins}–{each.ties}–{each.losses} "
        f"| {each.win_rate:.3f} ({each.win_low:.3f} to {each.win_high:.3f}) | {each.verdict} |\n"
    )


def without_nan(value: Any) -> Any:
    """Plain data for JSON: what is not finite becomes None, keys become texts."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
