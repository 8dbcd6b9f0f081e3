"""What is asked of a selection: refused where it cannot be met, equal where it says the same."""

from fractions import Fraction

import numpy as np
import pytest

from im_datasets.common.errors import SelectionError
from im_datasets.selection.request import SelectionRequest


def test_requests_that_say_the_same_are_equal():
    assert SelectionRequest(top_k=np.int64(3)) == SelectionRequest(top_k=3)
    assert SelectionRequest(fraction=1) == SelectionRequest(fraction=Fraction(1))
    assert isinstance(SelectionRequest(threshold=1, near_duplicates=1).near_duplicates, float)
    lists = SelectionRequest(top_k=1, exclude_contaminated=["a", "b"])
    assert lists == SelectionRequest(top_k=1, exclude_contaminated=(text for text in "ab"))


def test_one_string_is_left_for_the_index_to_refuse():
    assert SelectionRequest(top_k=1, exclude_contaminated="text").exclude_contaminated == "text"


def test_check_enough_counts_rows():
    SelectionRequest(top_k=3).check_enough(3)
    SelectionRequest(fraction=0.5).check_enough(0)
    with pytest.raises(SelectionError, match=r"top_k=3, but the dataset has 2 rows; ask for 2 or fewer"):
        SelectionRequest(top_k=3).check_enough(2)


def test_settings_tell_numbers_for_texts():
    request = SelectionRequest(fraction=0.5, per_group=("topic", 2), exclude_contaminated=["a", "b"], seed=4)
    assert request.settings(embedder=None, evaluation_sha256="f0", targets={"examples": 3}, shortfall=0) == {
        "top_k": None,
        "fraction": 0.5,
        "threshold": None,
        "per_group": {"column": "topic", "quota": 2},
        "near_duplicates": None,
        "embedder": None,
        "exclude_contaminated": 2,
        "evaluation_sha256": "f0",
        "targets": {"examples": 3},
        "seed": 4,
        "shortfall": 0,
    }
