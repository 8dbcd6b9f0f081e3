"""The numbers behind report and card, against brute force and scipy's reference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import RULE, make_scores, make_selection
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from im_datasets.report.formatting import headline, shortfall
from im_datasets.report.statistics import (
    Scores,
    contributions,
    mean_contributions,
    rank_correlations,
    request_settings,
    superiority,
)
from im_datasets.rules.linear import LinearRule, Term

NUMBERS = st.integers(-5, 5).map(float)


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.lists(NUMBERS, min_size=1, max_size=20))
def test_superiority_counts_pairs(left, right):
    wins = [(a > b) + 0.5 * (a == b) for a in left for b in right]
    assert superiority(np.array(left), np.array(right)) == pytest.approx(sum(wins) / len(wins))
    truth = [1] * len(left) + [0] * len(right)
    assert superiority(np.array(left), np.array(right)) == pytest.approx(roc_auc_score(truth, left + right))


def test_superiority_leaves_nan_out_and_is_nan_without_a_side():
    assert superiority(np.array([2.0, math.nan]), np.array([1.0])) == 1
    assert math.isnan(superiority(np.array([math.nan]), np.array([1.0])))


def average_ranks(values):
    """Ranks from 1, equal values sharing the mean of theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def test_rank_correlations_are_those_of_average_ranks_over_the_rows_that_have_both():
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=40), rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    y[:4], z[2:9] = math.nan, math.nan
    matrix = rank_correlations([x, y, z])
    for i, left in enumerate((x, y, z)):
        for j, right in enumerate((x, y, z)):
            both = np.isfinite(left) & np.isfinite(right)
            ranks = average_ranks(left[both]), average_ranks(right[both])
            assert matrix[i, j] == pytest.approx(pearsonr(*ranks).statistic)


def test_rank_correlations_are_nan_for_a_constant_and_for_too_few_rows():
    x = np.arange(5.0)
    few = np.array([1.0, 2.0, math.nan, math.nan, math.nan])
    matrix = rank_correlations([x, np.ones(5), few])
    assert matrix[0, 0] == pytest.approx(1)
    assert np.isnan(matrix[1]).all()
    assert np.isnan(matrix[2]).all()


def test_contributions_clip_and_add_up_to_the_score():
    scores = make_scores(24)
    for row in range(24):
        values = {name: float(column[row]) for name, column in scores.items()}
        parts = contributions(LinearRule.from_dict(RULE), values)
        assert parts == [-values["im_quality"], 0.01 * min(values["im_output_length"], 100)]
        assert RULE["intercept"] + sum(parts) == pytest.approx(values["im_log_loss"])
    assert all(math.isnan(part) for part in contributions(LinearRule.from_dict(RULE), {}))


def test_mean_contributions_are_over_the_rows_that_have_the_column():
    scores = Scores.of(make_selection(24, 8, unscorable=2))
    lengths, quality = make_scores(22)["im_output_length"], make_scores(22)["im_quality"]
    expected = [-quality.mean(), 0.01 * np.minimum(lengths, 100).mean()]
    assert mean_contributions(LinearRule.from_dict(RULE), scores) == pytest.approx(expected)
    missing = LinearRule("missing", "", 0.0, (Term("im_mtld", 1.0),))
    assert math.isnan(mean_contributions(missing, scores)[0])


def test_scores_hold_both_sides_in_order():
    selection = make_selection()
    scores = Scores.of(selection)
    assert scores.indicators == ["im_input_length", "im_output_length", "im_quality"]
    assert scores.kept["im_log_loss"].tolist() == sorted(selection.kept["im_log_loss"][:])
    assert len(scores.both("im_quality")) == 24
    comparison = scores.compare("im_quality")
    assert comparison.kept.mean == pytest.approx(np.mean(selection.kept["im_quality"][:]))
    assert comparison.dropped.median == pytest.approx(np.nanmedian(selection.dropped["im_quality"][:]))
    assert (comparison.kept.count, comparison.dropped.count) == (8, 14)


def test_shortfall_is_told_only_when_rows_are_missing():
    selection = make_selection()
    assert shortfall(selection.settings["shortfall"]) == ""
    assert shortfall(1200) == "1,200 rows fewer than asked for: the checks left no more."
    assert "shortfall" not in request_settings(selection)


def test_headline_tells_an_empty_selection():
    assert headline(0, 7) == "Kept none of 7 rows"
