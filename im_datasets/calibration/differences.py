"""Two arms of finetuning runs → the difference of their losses, paired over seeds and examples, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.runs import Run

LEVEL = 0.95
"""Of every interval."""

TIE = 1e-6
"""Differences up to this are ties: tables keep sums to a millionth of a nat."""

Verdict = Literal["better", "worse", "no difference shown", "not measured"]
"""What an interval says of the selected rows; it shows no difference where it holds zero."""


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
    def verdict(self) -> Verdict:
        """What the interval says of the selected rows."""
        if not np.isfinite([self.low, self.high]).all():
            return "not measured"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "no difference shown"


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
    nats, tokens = _examples(selected, evaluation)
    baseline_nats, baseline_tokens = _examples(baseline, evaluation)
    gaps = nats - baseline_nats if np.array_equal(tokens, baseline_tokens) else np.full_like(nats, np.nan)
    total = int(tokens.sum()) or float("nan")
    means = gaps.mean(axis=0)
    low, high = difference_interval(gaps, tokens)
    wins = ties = losses = 0
    # With an example that was not measured the others would not stand for all.
    if np.isfinite(means).all():
        wins, losses = int((means < -TIE).sum()), int((means > TIE).sum())
        ties = len(means) - wins - losses
    win_low, win_high = win_interval(wins, ties, losses)
    return Difference(
        evaluation=evaluation,
        size=size,
        baseline=name,
        baseline_rows=int(baseline[0].rows or 0),
        selected_loss=float(nats.sum(axis=1).mean() / total),
        baseline_loss=float(baseline_nats.sum(axis=1).mean() / (int(baseline_tokens.sum()) or float("nan"))),
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


def _examples(runs: Sequence[Run], evaluation: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Summed losses, shape (seeds, examples), and tokens, shape (examples,), without examples of no tokens."""
    tables = [run.details["examples"][evaluation] for run in runs]
    tokens = np.array(tables[0]["tokens"], dtype=np.int64)
    sums = np.array([np.nan if nats is None else nats for table in tables for nats in table["nats"]], dtype=np.float64)
    return sums.reshape(len(runs), len(tokens))[:, tokens > 0], tokens[tokens > 0]
