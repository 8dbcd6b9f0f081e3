"""Differences by hand, intervals that cover what they claim, and the win of a rule that knows which rows are broken."""

import json

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import binomtest, norm, t, ttest_1samp, ttest_ind

from im_datasets.calibration.comparison import (
    BASELINES,
    Comparison,
    compare,
    difference_interval,
    paired_difference,
    random_rows,
    win_interval,
)
from im_datasets.calibration.experiments.evaluation import Evaluation
from im_datasets.calibration.experiments.experiment import Experiment
from im_datasets.calibration.experiments.finetuning import Training
from im_datasets.calibration.experiments.pool import make_pool
from im_datasets.calibration.runs import Run
from im_datasets.common.errors import CalibrationError
from im_datasets.data.pairs import Pairs
from im_datasets.rules.linear import LinearRule, Term

RULE = LinearRule("by-quality", "higher is better", 0.0, (Term("im_quality", -1.0),))


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


def test_random_rows_of_a_smaller_size_are_part_of_a_larger_draw(pool):
    assert random_rows(pool, 10, 3).tolist() == random_rows(pool, 30, 3)[:10].tolist()
    assert random_rows(pool, 10, 3).tolist() != random_rows(pool, 10, 4).tolist()


def test_baselines_rank_by_their_column():
    texts = {"instruction": ["a", "b", "c"], "response": ["1", "2", "3"]}
    scores = {"im_mtld": [1.0, 3.0, 2.0], "im_ifd": [0.9, 1.2, 0.95], "im_perplexity": [5.0, 2.0, 9.0]}
    pool = make_pool({"one": Dataset.from_dict({**texts, **scores})})
    assert BASELINES["mtld"].ranked(pool).tolist() == [1, 2, 0]
    assert BASELINES["ifd"].ranked(pool).tolist() == [2, 0]
    assert BASELINES["perplexity"].ranked(pool).tolist() == [1, 0, 2]


def _experiment(pool, base_model, folder):
    training = Training(
        epochs=3, learning_rate=1e-2, batch_size=8, micro_batch_size=8, max_tokens=64, template="plain", device="cpu"
    )
    words = ["apple", "plum", "pear", "fig", "grape"] * 2
    asked = [f"Write {word} once and once more." for word in words]
    held = Evaluation("held", Pairs.of(asked, [f"{word} {word}" for word in words]))
    return Experiment.of(pool, [held], base_model, training, folder, progress=False)


@pytest.fixture(scope="module")
def broken_half():
    """Rows of which every other one has another row's response, cut short; the score knows."""
    random = np.random.default_rng(0)
    words = [("apple", "plum", "pear", "fig", "grape")[place] for place in random.integers(5, size=160)]
    good = [place % 2 == 0 for place in range(160)]
    answers = [f"{w} " * (p % 3 + 1) if g else "".join(random.permutation(list("qxzvkj"))) for p, (w, g) in
               enumerate(zip(words, good, strict=True))]  # fmt: skip
    quality = random.normal(np.where(good, 1.5, -1.5))
    columns = {"instruction": [f"Write {word} {place}." for place, word in enumerate(words)], "response": answers}
    scores = {"im_quality": quality.tolist(), "im_output_length": [float(len(answer)) for answer in answers]}
    return make_pool({"rows": Dataset.from_dict(columns | scores)})


def test_compare_shows_a_clear_win_over_a_dataset_half_broken(broken_half, learning_model, folder):
    experiment = _experiment(broken_half, learning_model, folder)
    found = compare(experiment, RULE, sizes=[48], seeds=[0, 1, 2], baselines=["random"])
    (against_random,) = found.differences
    assert against_random.verdict == "better"
    assert against_random.win_rate > 0.8
    assert against_random.selected_loss < found.base_losses["held"]
    found.save(folder)
    saved = json.loads((folder / "comparison.json").read_text())
    assert saved["differences"][0]["verdict"] == "better"
    assert "| held | 48 | random |" in (folder / "comparison.md").read_text()
    assert (folder / "comparison.svg").is_file()
    assert (folder / "comparison.png").is_file()


def test_compare_shows_a_loss_of_a_rule_that_is_the_wrong_way_round(broken_half, learning_model, folder):
    backwards = LinearRule("backwards", "b", 0.0, (Term("im_quality", 1.0),))
    experiment = _experiment(broken_half, learning_model, folder)
    found = compare(experiment, backwards, sizes=[48], seeds=[0, 1], baselines=["random"])
    assert found.differences[0].verdict == "worse"
    assert "Fewer than five seeds: read the intervals with caution." in found.notes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sizes": [100]}, "size=100; it must be from 1 to 99"),
        ({"sizes": []}, "no size to compare at"),
        ({"sizes": [5], "seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"sizes": [5], "baselines": ["best"]}, "baseline 'best' is unknown; known: random, full, length"),
        ({"sizes": [5], "baselines": ["reward"]}, "baseline 'reward' needs im_reward, which was not scored"),
    ],
)
def test_compare_refuses_what_cannot_be_compared(pool, base_model, folder, given, message):
    with pytest.raises(CalibrationError, match=message):
        compare(_experiment(pool, base_model, folder), RULE, **given)


def test_table_of_a_comparison_is_markdown():
    difference = paired_difference([run([1.0, 4.0, 4.0])], [run([2.0, 4.0, 8.0])], "e", 5, "random")
    text = Comparison((difference,), {}, (0,), "r", (), {}).table()
    assert text.splitlines()[2].startswith("| e | 5 | random | 1.2857 | 2.0000 | -0.7143 (")
    assert len({line.count("|") for line in text.splitlines()}) == 1
