"""Runs that cannot carry a fit are refused, each for its own reason; the others are lined up."""

import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import make_means, make_runs

from im_datasets.calibration.fit.observations import observe
from im_datasets.common.errors import CalibrationError


def changed(runs, at, **fields):
    return [*runs[:at], replace(runs[at], **fields), *runs[at + 1 :]]


def test_observe_lines_up_means_and_losses():
    runs = make_runs(8)
    seen = observe(runs)
    assert seen.columns == ("im_reward", "im_coherence", "im_mtld")
    assert seen.means[3].tolist() == list(runs[3].means.values())
    assert seen.losses.tolist() == [run.losses["self-instruct"] for run in runs]
    np.testing.assert_array_equal(seen.log_losses, np.log(seen.losses))
    assert (seen.evaluation, seen.base_model["id"], dict(seen.training)) == ("self-instruct", "tiny", {"epochs": 3})
    assert seen.rows == (1000,) * 8
    assert len(seen) == 8


def test_observe_takes_named_columns_and_leaves_out_excluded_ones():
    runs = make_runs(8)
    assert observe(runs, columns=["im_mtld", "im_reward"]).columns == ("im_mtld", "im_reward")
    assert observe(runs, exclude=["im_coherence"]).columns == ("im_reward", "im_mtld")


def test_observe_tells_training_settings_that_differ_from_shared_ones():
    runs = make_runs(8, training={"epochs": 3, "lr": 1e-4, "seed": 1})
    seen = observe(changed(runs, 2, training={"epochs": 3, "lr": 2e-4, "seed": 2}))
    assert (dict(seen.training), seen.varied) == ({"epochs": 3}, ("lr",))


def test_observe_takes_runs_of_several_devices_and_says_so():
    runs = [replace(run, base_model={**run.base_model, "device": "cpu"}) for run in make_runs(8)]
    assert observe(runs).training == {"epochs": 3, "device": "cpu"}
    seen = observe(changed(runs, 2, base_model={**runs[2].base_model, "device": "cuda"}))
    assert seen.base_model == {"id": "tiny", "revision": "0" * 8}
    assert (seen.training, seen.varied) == ({"epochs": 3}, ("device",))


def test_observe_tells_indicators_by_weights_and_not_by_where_they_lie_or_run():
    def runs(seed=0, **settings):
        stated = {"Perplexity": {"model": "/a", "weights": "sha256:1", **settings}}
        return [replace(run, run=f"{run.run}-{seed}") for run in make_runs(4, seed=seed, indicators=stated)]

    seen = observe([*runs(device="cpu"), *runs(1, model="/b", device="cuda", compile=True)])
    assert seen.indicators == {"Perplexity": {"model": "/a", "weights": "sha256:1"}}
    with pytest.raises(CalibrationError, match="the runs differ in indicators"):
        observe([*runs(), *runs(1, weights="sha256:2")])


def test_observe_knows_the_texts_that_were_measured_on():
    runs = make_runs(8)
    assert observe(runs).evaluation_digest is None
    stated = [replace(run, evaluations={"self-instruct": "1" * 64, "other": run.run}) for run in runs]
    assert observe([*runs[:4], *stated[4:]]).evaluation_digest == "1" * 64
    mixed = changed(stated, 5, evaluations={"self-instruct": "2" * 64})
    with pytest.raises(CalibrationError, match=r"one set of texts in 'r000' \(1{12}\) and another in 'r005' \(2{12}\)"):
        observe(mixed)


def test_observe_tells_copies_of_a_subset_from_other_subsets():
    runs = make_runs(5)
    means = {name: mean * (1 + 1e-15) for name, mean in reversed(runs[1].means.items())}
    copies = [replace(runs[1], run="r9", seed=7, means=means), replace(runs[1], run="r91", rows=999)]
    seen = observe([*runs, *copies])
    assert (seen.subset.tolist(), seen.subsets) == ([0, 1, 2, 3, 4, 1, 5], 6)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no calibration runs"),
        (make_runs(4), "4 runs are too few: a rule of one term needs 5"),
        (
            [replace(run, run=f"{run.run}{seed}", seed=seed) for run in make_runs(4) for seed in range(3)],
            "12 runs on 4 different subsets are too few",
        ),
        (changed(make_runs(8), 1, losses={"other": 1.0}), "several evaluation sets: other, self-instruct; name one"),
        (changed(make_runs(8), 1, losses={"self-instruct": math.nan}), "no loss on 'self-instruct' in 'r001'"),
        (changed(make_runs(8), 1, losses={"self-instruct": 0.0}), "not above 0 in 'r001'; .*not its logarithm"),
        (changed(make_runs(8), 1, losses={"self-instruct": -0.3}), "not above 0 in 'r001'"),
        ([replace(run, losses={"a": 0.5}) for run in make_runs(8)], "the loss on 'a' is 0.5 in every run"),
        (changed(make_runs(8), 1, means={"im_reward": 1.0, "im_mtld": 3.0}), "no mean of im_coherence in 'r001';"),
        ([replace(run, means=dict(run.means) | {"im_mtld": math.nan}) for run in make_runs(8)], "and 3 more"),
        ([replace(run, means=dict(run.means) | {"im_mtld": 60.0}) for run in make_runs(8)], "im_mtld has the same"),
        (changed(make_runs(8), 1, base_model={"id": "other"}), "the runs differ in base_model: .*split the table"),
        (
            [*make_runs(4, indicators={"KNNDistance": {"k": 6}}), *make_runs(4, indicators={"KNNDistance": {"k": 5}})],
            "the runs differ in indicators",
        ),
    ],
)
def test_observe_refuses_and_says_why(runs, message):
    with pytest.raises(CalibrationError, match=message):
        observe(runs)


def test_observe_refuses_a_perfectly_collinear_pair_by_name():
    means = make_means(20, columns=("im_reward", "im_mtld"))
    runs = make_runs(20, means=means | {"im_quality": 3 - 2 * means["im_reward"]})
    with pytest.raises(CalibrationError, match=r"im_reward and im_quality are perfectly collinear.*--exclude im_qual"):
        observe(runs)


def test_observe_refuses_a_column_that_is_a_sum_of_others():
    means = make_means(20, columns=("im_reward", "im_mtld", "im_coherence"))
    runs = make_runs(20, means=means | {"im_quality": means["im_reward"] + 0.1 * means["im_mtld"]})
    with pytest.raises(CalibrationError, match="im_reward and im_mtld and im_quality are perfectly collinear"):
        observe(runs)


def test_observe_takes_nearly_collinear_columns():
    means = make_means(20, columns=("im_reward",))
    noise = 1e-3 * np.random.default_rng(0).normal(size=20)
    assert len(observe(make_runs(20, means=means | {"im_quality": means["im_reward"] + noise})).columns) == 2


@pytest.mark.parametrize("settings", [{"evaluation": "x"}, {"columns": ["im_x"]}, {"exclude": ["im_x"]}])
def test_observe_names_what_is_there(settings):
    with pytest.raises(CalibrationError, match="there are"):
        observe(make_runs(8), **settings)


def test_observe_refuses_to_be_left_without_a_column():
    with pytest.raises(CalibrationError, match="no candidate column is left"):
        observe(make_runs(8), columns=["im_mtld"], exclude=["im_mtld"])
