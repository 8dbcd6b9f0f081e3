"""The whole way from runs to coefficients, as one thing that can be done again on a fold or a resample."""

import pytest

from im_datasets.calibration.fit.procedure import Procedure
from im_datasets.common.errors import CalibrationError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "r2"}, "criterion is one of aicc, bic, adjusted_r2, cv_r2; got 'r2'"),
        ({"method": "lasso"}, "method is one of all-subsets, stepwise, none"),
        ({"regularise": True}, "regularise is one of auto, always, never"),
        ({"most": 0}, "at least one term; got 0"),
    ],
)
def test_procedure_refuses_what_it_does_not_know(settings, message):
    with pytest.raises(CalibrationError, match=message):
        Procedure(**settings)


@pytest.mark.parametrize(
    ("settings", "runs", "candidates", "terms"),
    [
        ({}, 129, 11, 6),
        ({}, 35, 11, 3),
        ({}, 6, 11, 1),
        ({}, 129, 2, 2),
        ({"most": 4}, 10, 3, 3),
        ({"most": 4}, 8, 9, 4),
    ],
)
def test_terms_are_one_for_ten_runs_unless_told_otherwise(settings, runs, candidates, terms):
    assert Procedure(**settings).terms(runs, candidates) == terms


@pytest.mark.parametrize("settings", [{"most": 5}, {"method": "none"}])
def test_terms_refuse_more_than_the_runs_carry(settings):
    with pytest.raises(CalibrationError, match="8 runs are too few for 5 terms: at least 9, better 50"):
        Procedure(**settings).terms(8, 5)
