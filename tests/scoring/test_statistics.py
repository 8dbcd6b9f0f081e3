"""describe: the six figures of a column, over what is finite."""

import math

import numpy as np
import pytest

from im_datasets.scoring.statistics import describe


def test_describe_leaves_out_what_is_not_finite():
    figures = describe(np.array([4.0, math.nan, 1.0, math.inf, 1.0]))
    assert figures == {"count": 3, "mean": 2.0, "std": pytest.approx(math.sqrt(2)), "min": 1.0, "median": 1.0, "max": 4}


@pytest.mark.parametrize("values", [[], [math.nan, -math.inf]])
def test_describe_of_no_finite_value_is_a_count_of_none(values):
    assert describe(np.array(values, dtype=np.float64)) == {"count": 0}
