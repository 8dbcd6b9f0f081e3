"""The page of a module's Space: type a pair, press the button, read the numbers."""

from importlib.util import find_spec

import pytest

import im_datasets
from im_datasets.common.errors import MissingExtraError
from im_datasets.indicators.metric_page import build, scores_table


def test_scores_table_says_what_could_not_be_scored():
    table = scores_table(im_datasets.metric("length", keep_in_memory=True), ("Name a fruit.", ""))
    assert table.count("could not be scored") == 2


@pytest.mark.skipif(find_spec("gradio") is not None, reason="Gradio is here")
def test_page_without_gradio_says_how_to_get_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'im-datasets\[spaces\]'"):
        build(im_datasets.metric("mtld", keep_in_memory=True), ("a", "b"))
