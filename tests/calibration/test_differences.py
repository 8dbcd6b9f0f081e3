"""Differences by hand, and intervals that cover what they claim."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t, ttest_1samp, ttest_ind

from im_datasets.calibration.differences import difference_interval, paired_difference, win_interval
from im_datasets.calibration.runs import Run


def run(nats, tokens=(1, 2, 4), rows=10):
    return Run("r", {}, {"e": 0.0}, rows=rows, details={"examples": {"e": {"nats": nats, "tokens": list(tokens)}}})


def test_paired_difference_by_hand():
    # Seed 0: (1-2) + (4-4) + (4-8) = -5; seed 1: (3-2) + (4-4) + (4-6) = -1; of 7 tokens each.
    selected, baseline = [run([1.0, 4.0, 4.0]), run([3.0, 4.0, 4.0])], [run([2.0, 4.0, 8.0]), run([2.0, 4.0, 6.0])]
    found = paired_difference(selected, baseline, "e", 5, "random")
    assert found.per_seed == pytest.approx((-5 / 7, -1 / 7))
    assert found.difference == pytest.approx(-3 / 7)
    assert (found.selected_loss, found.baseline_loss) == pytest.approx((10 / 7, 13 / 7))
    # Example means over seeds: 0, 0, -3.
    assert (found.wins, found.ties, found.losses) == (1, 2, 0)
    assert found.win_rate == pytest.approx(2 / 3)


def test_paired_difference_of_equal_arms_shows_nothing():
    arms = [run([1.0, 4.0, 4.0]), run([3.0, 4.0, 4.0])]
    found = paired_difference(arms, arms, "e", 5, "random")
    assert (found.difference, found.low, found.high, found.win_rate) == (0, 0, 0, 0.5)
    assert found.win_low < 0.5 < found.win_high
    assert found.verdict == "no difference shown"


def test_paired_difference_of_a_diverged_run_is_not_measured():
    found = paired_difference([run([1.0, None, 4.0])], [run([1.0, 1.0, 4.0])], "e", 5, "random")
    assert np.isnan([found.difference, found.low, found.win_rate, found.win_low, found.win_high]).all()
    assert (found.wins, found.ties, found.losses) == (0, 0, 0)
    assert found.verdict == "not measured"


def test_paired_difference_of_other_tokens_is_not_measured():
    found = paired_difference([run([1.0, 2.0, 4.0])], [run([1.0, 1.0, 4.0], (1, 2, 5))], "e", 5, "random")
    assert np.isnan([found.difference, found.low, found.win_rate, found.win_low]).all()
    assert found.verdict == "not measured"


def test_paired_difference_leaves_out_examples_without_tokens():
    found = paired_difference([run([1.0, 0.0], [2, 0])], [run([3.0, 0.0], [2, 0])], "e", 5, "random")
    assert (found.difference, found.wins, found.ties) == (-1.0, 1, 0)


def test_paired_difference_of_examples_without_any_tokens_is_not_measured():
    found = paired_difference([run([0.0, 0.0], [0, 0])], [run([0.0, 0.0], [0, 0])], "e", 5, "random")
    assert np.isnan([found.difference, found.selected_loss, found.baseline_loss, found.low, found.win_rate]).all()
    assert found.verdict == "not measured"


def test_difference_interval_without_noise_of_examples_is_students_over_seeds():
    per_seed = np.array([-0.4, -0.1, -0.3])
    tokens = np.array([3, 5, 2, 10])
    expected = ttest_1samp(per_seed, 0).confidence_interval(0.95)
    assert difference_interval(per_seed[:, None] * tokens, tokens) == pytest.approx(tuple(expected))


def test_difference_interval_of_one_seed_is_students_over_examples():
    gaps = np.array([[-4.0, 1.0, -3.0, 2.5]])
    expected = ttest_1samp(gaps[0] / 2, 0).confidence_interval(0.95)
    assert difference_interval(gaps, np.full(4, 2)) == pytest.approx(tuple(expected))


def test_difference_interval_of_noises_that_add_up_is_welchs():
    # A gap that is a seed's part less an example's: its mean is a difference of two independent means.
    by_seed, by_example = np.array([0.3, -0.2, 0.6]), np.array([0.5, 0.1, -0.4, 0.9, 1.4])
    expected = ttest_ind(by_seed, by_example, equal_var=False).confidence_interval(0.95)
    found = difference_interval(by_seed[:, None] - by_example, np.ones(5, dtype=np.int64))
    assert found == pytest.approx(tuple(expected))


def test_difference_interval_of_a_ratio_by_hand():
    # 6 nats over 4 tokens: 1.5. Residuals (1 - 1.5 * 1, 5 - 1.5 * 3) / 2 = -0.25, 0.25: variance 0.125 / 2 = 0.25².
    low, high = difference_interval(np.array([[1.0, 5.0]]), np.array([1, 3]))
    assert (low, high) == pytest.approx((1.5 - 0.25 * t.ppf(0.975, 1), 1.5 + 0.25 * t.ppf(0.975, 1)))


@pytest.mark.parametrize("gaps", [[[1.0, np.nan]], [[1.0, np.inf]], [[1.0]], np.empty((2, 0))])
def test_difference_interval_of_what_shows_no_noise_is_nan(gaps):
    gaps = np.array(gaps)
    assert np.isnan(difference_interval(gaps, np.ones(gaps.shape[1], dtype=np.int64))).all()


# Standard deviations of the difference: by seed, by example, by both together; then the widest interval that is
# allowed on average, as a multiple of the one whose standard deviations are known.
@pytest.mark.parametrize(
    ("seeds", "by_seed", "by_example", "by_both", "widest"),
    [
        (5, 1.0, 0.1, 0.1, 1.45),
        (5, 0.1, 1.0, 0.1, 1.1),
        (5, 1.0, 1.0, 1.0, 1.35),
        (3, 0.1, 1.0, 0.1, 1.15),
        (3, 1.0, 1.0, 1.0, 1.55),
        (3, 1.0, 3.0, 1.0, 1.25),
        (2, 1.0, 3.0, 1.0, 1.35),
    ],
)
def test_difference_interval_covers_the_truth_and_is_not_wide(seeds, by_seed, by_example, by_both, widest):
    random = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(400):
        tokens = random.integers(5, 40, 80)
        seed = random.normal(0, by_seed * seeds**0.5, (seeds, 1)) * tokens
        example = random.normal(0, by_example * 80**0.5, (1, 80)) * 22
        both = random.normal(0, by_both * (seeds * 80) ** 0.5, (seeds, 80)) * 22
        low, high = difference_interval(0.3 * tokens + seed + example + both, tokens)
        hits += low <= 0.3 <= high
        widths.append(high - low)
    assert hits / 400 >= 0.92
    assert np.mean(widths) <= widest * 2 * 1.96 * np.sqrt(by_seed**2 + by_example**2 + by_both**2)


@pytest.mark.parametrize(("wins", "losses"), [(197, 55), (10, 0), (0, 1), (3, 4)])
def test_win_interval_is_wilsons(wins, losses):
    expected = binomtest(wins, wins + losses).proportion_ci(method="wilson")
    assert win_interval(wins, 0, losses) == pytest.approx(tuple(expected))


def test_win_interval_counts_ties_half_and_nothing_as_nan():
    assert win_interval(3, 4, 1) == win_interval(5, 0, 3)
    assert np.isnan(win_interval(0, 0, 0)).all()


@pytest.mark.parametrize("shift", [0.0, 0.8, 1.5])
def test_win_interval_covers_the_win_rate_of_these_seeds_and_is_not_wide(shift):
    # Seeds differ widely and single gaps are noisy: neither may pull the rate towards one half.
    random, tokens = np.random.default_rng(1), np.full(100, 10)
    hits, widths, known = 0, [], []
    for _ in range(400):
        seed, example = random.normal(-shift, 0.5, (3, 1)), random.normal(0, 0.6, (1, 100))
        gaps = seed + example + random.normal(0, 1.0, (3, 100))
        arms = [[run(row.tolist(), tokens) for row in side] for side in (gaps, np.zeros_like(gaps))]
        found = paired_difference(*arms, "e", 5, "random")
        truth = norm.cdf(-seed.mean() / np.sqrt(0.6**2 + 1 / 3))
        hits += found.win_low <= truth <= found.win_high
        widths.append(found.win_high - found.win_low)
        known.append(2 * 1.96 * np.sqrt(truth * (1 - truth) / 100))
    assert 0.92 <= hits / 400 <= 0.98
    assert np.mean(widths) <= 1.1 * np.mean(known)
