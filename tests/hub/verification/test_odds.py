"""The odds of a sample, against a count by hand."""

from itertools import combinations

import pytest

from im_datasets.hub.verification.odds import chance_of_seeing, tell_odds


def test_chance_of_seeing_is_that_of_all_samples():
    samples = list(combinations(range(7), 3))
    seen = sum(any(row < 2 for row in sample) for sample in samples)
    # 35 samples of 3 of 7 rows; those without a forged one are the 10 of 3 of the 5 others.
    assert (len(samples), seen) == (35, 25)
    assert chance_of_seeing(7, 3, 2) == pytest.approx(25 / 35)


def test_a_sample_of_all_rows_sees_everything():
    assert chance_of_seeing(5000, 5000, 1) == 1.0
    assert chance_of_seeing(20, 20, 20) == 1.0


@pytest.mark.parametrize(
    ("rows", "drawn", "chance"), [(2000, 32, 81), (40, 32, 96), (10**6, 32, 81), (100, 95, 99), (3, 0, 0)]
)
def test_odds_are_told_in_whole_percent_and_never_as_certain(rows, drawn, chance):
    assert tell_odds(rows, drawn, "kept").endswith(f"with a chance of {chance} %")
