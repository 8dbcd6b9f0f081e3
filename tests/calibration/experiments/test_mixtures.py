"""Subsets: as many rows as asked, no row twice, the same again, and means that vary as strata promise."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures, share_out
from im_datasets.calibration.experiments.pool import make_pool
from im_datasets.common.errors import CalibrationError


@given(st.data())
def test_share_out_adds_up_and_keeps_within_sizes(data):
    sizes = np.array(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=8)))
    weights = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes))))
    total = data.draw(st.integers(0, int(sizes.sum())))
    given_out = np.array(share_out(total, weights, sizes))
    assert given_out.sum() == total
    assert ((given_out >= 0) & (given_out <= sizes)).all()


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.integers(0, 500))
def test_share_out_is_proportional_where_there_is_room(weights, total):
    weights = np.array(weights) / np.sum(weights)
    given_out = np.array(share_out(total, weights, np.full(len(weights), 1000)))
    assert (np.abs(given_out - total * weights) < 1).all()


def test_draw_mixtures_gives_the_rows_asked_for_each_once(pool):
    jobs = draw_mixtures(pool, Mixing(subsets=5, rows=30))
    assert [len(set(job.rows.tolist())) for job in jobs] == [30] * 5
    assert len({job.rows.tobytes() for job in jobs}) == 5


def test_draw_mixtures_follows_the_weights_it_records(pool):
    for job in draw_mixtures(pool, Mixing(subsets=8, rows=20)):
        share = pool.composition(job.rows)["fruits"] / 20
        assert abs(share - job.subset["weights"]["fruits"]) <= 0.05


def test_draw_mixtures_repeats_itself_and_can_be_extended(pool):
    some = draw_mixtures(pool, Mixing(subsets=3, rows=10, seed=4))
    more = draw_mixtures(pool, Mixing(subsets=6, rows=10, seed=4))
    other = draw_mixtures(pool, Mixing(subsets=3, rows=10, seed=5))
    assert [job.rows.tolist() for job in some] == [job.rows.tolist() for job in more[:3]]
    assert [job.rows.tolist() for job in some] != [job.rows.tolist() for job in other]


def test_draw_mixtures_disjoint_shares_no_row(pool):
    jobs = draw_mixtures(pool, Mixing(subsets=5, rows=20, disjoint=True, strata=["im_mtld"]))
    assert len(set(np.concatenate([job.rows for job in jobs]).tolist())) == 100


def test_draw_mixtures_strata_spread_the_means(pool):
    def spread(**given):
        jobs = draw_mixtures(pool, Mixing(subsets=40, rows=15, concentration=0.5, **given))
        return np.std([pool.means(job.rows)["im_quality"] for job in jobs])

    assert spread(strata=["im_quality"]) > 1.5 * spread()


def test_draw_mixtures_takes_strata_in_turn(pool):
    jobs = draw_mixtures(pool, Mixing(subsets=4, rows=5, strata=["im_quality", "im_mtld"]))
    assert [job.subset["stratum"] for job in jobs] == ["im_quality", "im_mtld"] * 2


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"rows": 101}, "need 101 candidates and there are 100"),
        ({"rows": 30, "subsets": 4, "disjoint": True}, "4 subsets of 30 rows need 120 candidates"),
        ({"rows": 5, "strata": ["im_reward"]}, "no column im_reward to make strata of; there are: im_mtld"),
    ],
)
def test_draw_mixtures_refuses_what_the_pool_cannot_give(pool, given_, message):
    with pytest.raises(CalibrationError, match=message):
        draw_mixtures(pool, Mixing(**given_))


def test_draw_mixtures_of_one_dataset_needs_strata():
    alone = make_pool({"a": Dataset.from_dict({"instruction": ["x"], "response": ["y"], "im_mtld": [1.0]})})
    with pytest.raises(CalibrationError, match="subsets of one dataset without strata are all alike"):
        draw_mixtures(alone, Mixing(rows=1, subsets=1))


@pytest.mark.parametrize(
    ("given_", "message"),
    [({"subsets": 0}, "subsets=0; must be 1 or more"), ({"concentration": 0}, "concentration=0"), ({"seed": -1}, "-1")],
)
def test_mixing_refuses_numbers_out_of_range(given_, message):
    with pytest.raises(CalibrationError, match=message):
        Mixing(**given_)
