"""The fit: known coefficients come back inside their own intervals, facts become caveats, the rule is one to use."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import INTERCEPT, TRUTH, alike, make_means, make_runs

from im_datasets.calibration import fit_rule
from im_datasets.calibration.fit.regression import least_squares
from im_datasets.calibration.fit.resampling import _refits
from im_datasets.calibration.runs import Runs, append_run
from im_datasets.common.errors import CalibrationError
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule

RESULTS = Path(__file__).parents[3] / "examples" / "calibration" / "results"
QUICK = {"repeats": 1, "resamples": 100}
TABLES = 400


@pytest.fixture(scope="module")
def fit():
    """Sixty runs, the three columns that matter and one that does not."""
    return fit_rule(make_runs(60, columns=(*TRUTH, "im_quality")), repeats=2, resamples=300)


@pytest.fixture(scope="module")
def twins():
    """Naturalness and understandability nearly equal, both forced into the rule."""
    return fit_rule(make_runs(60, means=alike()), method="none", **QUICK)


def test_fit_recovers_known_coefficients_inside_its_intervals(fit):
    truth = np.array([INTERCEPT, *(TRUTH.get(column, 0.0) for column in fit.columns)])
    assert set(TRUTH) <= set(fit.columns)
    assert (fit.bootstrap.low < truth).all()
    assert (truth < fit.bootstrap.high).all()
    assert (fit.least_squares.low < truth).all()
    assert (truth < fit.least_squares.high).all()
    assert fit.r_squared > fit.cross_validation.r_squared > 0.5


@pytest.mark.parametrize("uneven", [0.0, 1.0])
def test_intervals_cover_the_truth_about_as_often_as_they_say(uneven):
    """400 tables of 40 runs, noise even or growing with a column; 1,200 slopes, three of each table together.

    If the true coverage is 95 %, 400 independent tables give a share within ±3.0 points in 99.4 % of all trials:
    2.75 · sqrt(0.95 · 0.05 / 400) = 0.030, by the binomial law and as if the three slopes of a table were one.
    """
    generator = np.random.default_rng(11)
    tolerance = stats.norm.ppf(0.997) * math.sqrt(0.95 * 0.05 / TABLES)
    truth = np.array([-0.05, 0.03, 0.0])
    hits = {"hc3": 0, "bootstrap": 0}
    for _ in range(TABLES):
        x = generator.normal(size=(40, 3))
        x[:, 1] = 0.7 * x[:, 0] + 0.7 * x[:, 1]
        y = 0.3 + x @ truth + 0.04 * (1 + uneven * np.abs(x[:, 0])) * generator.normal(size=40)
        hc3, resampled = _both_intervals(x, y, generator)
        hits["hc3"] += int(((hc3[0] < truth) & (truth < hc3[1])).sum())
        hits["bootstrap"] += int(((resampled[0] < truth) & (truth < resampled[1])).sum())
    for count in hits.values():
        assert count / (3 * TABLES) == pytest.approx(0.95, abs=tolerance)


def _both_intervals(x, y, generator):
    """The intervals as ``fit_rule`` makes them, without what does not bear on them."""
    design = np.column_stack([np.ones(40), x])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    inner = (y - design @ coefficients) / (1 - np.einsum("ij,jk,ik->i", design, inverse, design))
    errors = np.sqrt(np.diag(inverse @ (design.T * inner**2) @ design @ inverse))[1:]
    fits = _refits(x, y, generator.multinomial(40, np.full(40, 1 / 40), size=300), 0.0)[:, 1:]
    slopes, t = coefficients[1:], stats.t.ppf(0.975, 36)
    return [(slopes - t * spread, slopes + t * spread) for spread in (errors, fits.std(axis=0, ddof=1))]


def test_the_intervals_that_are_simulated_are_those_of_the_fit():
    runs = make_runs(40)
    fit = fit_rule(runs, method="none", resamples=300, repeats=1, seed=5)
    x, y = fit.means, fit.observations.log_losses
    hc3, resampled = _both_intervals(x, y, np.random.default_rng([5, 2]))
    np.testing.assert_allclose(hc3, [fit.least_squares.low[1:], fit.least_squares.high[1:]], rtol=1e-6)
    np.testing.assert_allclose(resampled, [fit.bootstrap.low[1:], fit.bootstrap.high[1:]], rtol=1e-6)


def test_the_same_table_gives_the_same_rule():
    runs = make_runs(30)
    first, second = (fit_rule(runs, **QUICK).rule.to_dict() for _ in range(2))
    assert first == second
    assert first != fit_rule(runs, seed=1, **QUICK).rule.to_dict()


def test_the_order_of_the_table_does_not_matter():
    runs = make_runs(30)
    shuffled = [runs[place] for place in np.random.default_rng(0).permutation(30)]
    assert fit_rule(shuffled, **QUICK).rule.to_dict() == fit_rule(runs, **QUICK).rule.to_dict()


def test_runs_on_one_subset_with_several_seeds_are_no_more_subsets():
    """Twelve subsets, five seeds each, losses that are each subset's own luck: nothing is foreseen of a new subset."""
    luck = np.random.default_rng(2).normal(size=(12, 5), scale=0.002)
    runs = [
        replace(
            run,
            run=f"{run.run}-{seed}",
            losses={"self-instruct": run.losses["self-instruct"] * float(np.exp(luck[i, seed]))},
        )
        for i, run in enumerate(make_runs(12, columns=("im_quality", "im_output_length"), noise=0.2))
        for seed in range(5)
    ]
    fit = fit_rule(runs, **QUICK)
    assert (fit.most, fit.rule.provenance["runs"], fit.rule.provenance["subsets"]) == (1, 60, 12)
    assert fit.cross_validation.r_squared < 0
    assert "The 60 runs were trained on 12 different subsets" in " ".join(fit.rule.caveats)
    assert "different subsets" not in " ".join(fit_rule(make_runs(12), **QUICK).rule.caveats)


def test_provenance_names_the_texts_of_the_evaluation_set():
    stated = [replace(run, evaluations={"self-instruct": "1" * 64}) for run in make_runs(12)]
    assert fit_rule(stated, **QUICK).rule.provenance["evaluation_digest"] == "1" * 64


@pytest.mark.parametrize("evaluation", ["self-instruct", "references"])
def test_the_rules_of_the_example_are_those_of_its_table(evaluation):
    stated = LinearRule.load(RESULTS / f"rule-{evaluation}.json")
    fit = fit_rule(RESULTS / "runs.jsonl", evaluation=evaluation, resamples=100)
    assert fit.columns == stated.columns
    assert [term.coefficient for term in fit.rule.terms] == pytest.approx([t.coefficient for t in stated.terms])
    for name in ("r_squared", "cross_validated_r_squared", "cross_validated_rank_correlation"):
        assert fit.rule.provenance[name] == pytest.approx(stated.provenance[name]), name
    assert f"cross-validated {fit.cross_validation.r_squared:.2f}" in (RESULTS.parent / "README.md").read_text()


def test_rule_goes_through_its_file_and_predicts_the_fitted_losses(fit, tmp_path):
    fit.rule.save(tmp_path / "rule.json")
    rule = LinearRule.load(tmp_path / "rule.json")
    assert rule.terms == fit.rule.terms
    values = dict(zip(fit.columns, fit.means.T, strict=True))
    np.testing.assert_allclose(rule.predict(values), fit.fitted)
    np.testing.assert_allclose(fit.fitted, fit.least_squares.fitted)


def test_provenance_holds_what_a_reader_needs(fit):
    facts = json.loads(json.dumps(fit.rule.provenance, allow_nan=False))
    assert facts["runs"] == 60
    assert facts["rows_per_run"] == 1000
    assert facts["base_model"] == {"id": "tiny", "revision": "00000000"}
    assert facts["evaluation_set"] == "self-instruct"
    assert facts["training"] == {"epochs": 3}
    assert facts["criterion"] == "bic"
    assert facts["models_compared"] == 15
    assert facts["estimator"] == "ordinary least squares"
    assert facts["candidates"] == [*TRUTH, "im_quality"]
    assert facts["r_squared"] > facts["adjusted_r_squared"] > facts["leave_one_out_r_squared"]
    assert set(facts["coefficients"]) == {"intercept", *fit.columns}
    assert set(facts["coefficients"]["im_reward"]) >= {"standard_error_hc3", "p", "vif", "bootstrap_low", "same_sign"}
    assert facts["order_stability"]["low"] <= facts["order_stability"]["kendall_tau_median"]
    assert "statsmodels" in facts["versions"]


def test_rule_keeps_the_settings_that_the_runs_state():
    stated = {"Length": {"tokenizer": "embedded"}, "MTLD": {"threshold": 0.7}}
    means = make_means(30, columns=("im_mtld",))
    rule = fit_rule(make_runs(30, noise=0.001, means=means, indicators=stated), **QUICK).rule
    assert rule.indicators == {"MTLD": {"threshold": 0.7}}
    assert InstructMining(rule).indicators[0].threshold == 0.7


def test_fit_reads_a_table_and_leaves_out_runs_of_another_kind(tmp_path):
    runs = make_runs(20)
    for run in (*runs, replace(runs[0], run="c", kind="compare", losses={"self-instruct": 9.0})):
        append_run(tmp_path / "runs.jsonl", run)
    fit = fit_rule(tmp_path / "runs.jsonl", **QUICK)
    assert len(fit.observations) == 20
    np.testing.assert_array_equal(fit.coefficients, fit_rule(runs, **QUICK).coefficients)
    assert fit_rule(Runs(tuple(runs), ("a note",)), **QUICK).notes == ("a note",)


def test_high_inflation_is_said_and_leads_to_ridge(twins):
    assert twins.ridge is not None
    assert twins.least_squares.vif[2:].min() > 100
    assert twins.rule.provenance["estimator"] == "ridge regression"
    assert twins.rule.provenance["ridge_penalty"] == twins.ridge.penalty
    assert {"ridge", "least_squares"} <= set(twins.rule.provenance["coefficients"]["im_naturalness"])
    told = " ".join(twins.rule.caveats)
    assert "Variance inflation is above 10 for im_naturalness" in told
    assert "im_naturalness and im_understandability are nearly the same number" in told
    assert "as they were in the paper" in told
    assert "how their shared effect is divided between their two terms means nothing" in told
    assert "Ridge coefficients are biased" in told
    np.testing.assert_allclose(twins.coefficients, twins.ridge.coefficients)


def test_ridge_can_be_refused_and_asked_for(twins):
    runs = make_runs(60, means=alike())
    plain = fit_rule(runs, method="none", regularise="never", **QUICK)
    assert plain.ridge is None
    assert "the rule takes them all the same" in " ".join(plain.rule.caveats)
    assert plain.coefficients[3] * plain.coefficients[4] < 0
    assert "work against each other and nearly cancel" in " ".join(plain.rule.caveats)
    assert np.abs(plain.coefficients[3:]).max() > np.abs(twins.coefficients[3:]).max()
    assert fit_rule(make_runs(30), regularise="always", **QUICK).ridge is not None


def test_twins_that_are_only_candidates_are_named_too():
    fit = fit_rule(make_runs(60, means=alike()), max_terms=2, **QUICK)
    assert "either could stand for both" in " ".join(fit.rule.caveats)


def test_caveats_come_from_the_facts(fit):
    told = " ".join(fit.rule.caveats)
    assert "The criterion bic compared 15 models on the same runs" in told
    assert "Fitted for tiny; the coefficients are not known to carry over" in told
    assert "do not state the settings of all their indicators" in told
    assert "an extrapolation, and only the order is used" in told
    assert "no better than" not in told
    assert "order is not settled" not in told


def test_a_useless_fit_says_so():
    fit = fit_rule(make_runs(30, columns=("im_quality", "im_output_length"), noise=0.2), **QUICK)
    assert fit.cross_validation.r_squared < 0
    told = " ".join(fit.rule.caveats)
    assert "no better than their mean. Do not select by it." in told
    assert "The predicted order is not settled" in told


def test_few_runs_unstated_models_and_mixed_training_are_said():
    runs = [replace(run, base_model={}, training={"lr": i}) for i, run in enumerate(make_runs(12))]
    told = " ".join(fit_rule(runs, method="none", **QUICK).rule.caveats)
    assert "12 runs for 3 terms: fewer than 10 runs a term" in told
    assert "do not state their base model" in told
    assert "not trained alike: they differ in lr" in told
    assert "compared" not in told


def test_odd_residuals_and_single_runs_that_carry_a_fit_are_said():
    runs = make_runs(40, columns=("im_reward",))
    means = dict(runs[7].means) | {"im_reward": 12.0}
    runs[7] = replace(runs[7], means=means, losses={"self-instruct": 3.5})
    fit = fit_rule(runs, **QUICK)
    told = " ".join(fit.rule.caveats)
    assert "Single runs carry the fit (Cook's distance above 1): r007" in told
    assert "Breusch-Pagan" in told or "Jarque-Bera" in told


def test_fit_refuses_what_cannot_be_fitted():
    with pytest.raises(CalibrationError, match="9 runs are too few for 6 terms"):
        fit_rule(make_runs(9, columns=tuple(make_means(1))), method="none")
    with pytest.raises(CalibrationError, match="no calibration runs"):
        fit_rule([replace(run, kind="search") for run in make_runs(9)])


@pytest.mark.parametrize("runs", [5, 6, 9])
def test_a_handful_of_runs_gives_a_rule_of_one_term(runs):
    fit = fit_rule(make_runs(runs), **QUICK)
    assert len(fit.columns) == 1
    assert least_squares(fit.means, fit.observations.log_losses).r_squared == pytest.approx(fit.r_squared)
