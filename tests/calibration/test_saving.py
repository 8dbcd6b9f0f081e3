"""A saved result is plain JSON, and the same bytes each time."""

import json
import math

from matplotlib.figure import Figure

from im_datasets.calibration.saving import save_result


def drawn():
    figure = Figure()
    figure.subplots().plot([1, 2], [3, 4], "o")
    return figure


def test_save_result_writes_what_is_not_finite_as_null_and_keys_as_texts(tmp_path):
    data = {"losses": (1.0, math.nan, math.inf), "sources": {8: {"a": -math.inf}}, "name": "größer"}
    save_result(tmp_path / "deep" / "result", data, drawn())
    text = (tmp_path / "deep" / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"losses": [1.0, None, None], "sources": {"8": {"a": None}}, "name": "größer"}
    assert "größer" in text


def test_save_result_writes_the_same_bytes_each_time(tmp_path):
    for folder in ("one", "two"):
        save_result(tmp_path / folder / "result", {}, drawn())
    for ending in ("json", "png", "svg"):
        one, two = ((tmp_path / folder / f"result.{ending}").read_bytes() for folder in ("one", "two"))
        assert one == two
