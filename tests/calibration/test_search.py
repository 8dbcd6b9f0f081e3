"""The search finds a known minimum, repeats itself, and calls an objective once for each size and seed."""

import json
import math

import pytest

from im_datasets.calibration import search as module
from im_datasets.calibration.search import OWN, Sizes, blend_search, rows_of, search_objective
from im_datasets.common.errors import CalibrationError, MissingExtraError
from im_datasets.rules.linear import LinearRule, Term

RULE = LinearRule("by-quality", "higher is better", 0.0, (Term("im_quality", -1.0),))


def valley(rows):
    return (math.log(rows) - math.log(2500)) ** 2


def test_blend_search_finds_the_valley_from_its_low_end():
    tried = list(blend_search(valley, 512, 10_000, Sizes(trials=16)))
    assert tried[0] == 512
    assert len(set(tried)) == len(tried) == 16
    assert abs(math.log(min(tried, key=valley) / 2500)) < 0.25


def test_blend_search_repeats_itself():
    sizes = Sizes(trials=10)
    assert list(blend_search(valley, 512, 10_000, sizes)) == list(blend_search(valley, 512, 10_000, sizes))


@pytest.mark.parametrize("none", [math.nan, math.inf])
def test_blend_search_goes_on_past_losses_that_are_none(none):
    asked = []

    def loss(rows):
        asked.append(rows)
        return none if rows < 600 or rows > 4000 else valley(rows)

    tried = list(blend_search(loss, 512, 10_000, Sizes(trials=16)))
    assert len(tried) == 16
    assert tried[0] == 512
    assert abs(math.log(min((size for size in tried if 600 <= size <= 4000), key=valley) / 2500)) < 0.25
    assert set(asked) == set(tried)


class Counting:
    """An objective with a valley at 30 rows of high quality, which remembers what it was asked."""

    def __init__(self, most=math.inf):
        self.asked, self.most = [], most

    def __call__(self, rows, seed):
        if len(self.asked) >= self.most:
            raise KeyboardInterrupt
        self.asked.append((len(rows), seed, tuple(rows["instruction"])))
        return abs(math.log(len(rows) / 30)) - sum(rows["im_quality"]) / len(rows) + 0.01 * seed


def test_search_objective_goes_on_where_it_was_interrupted(pool, folder):
    sizes = Sizes(low=5, high=90, trials=6, points=4, seeds=(0, 1))
    interrupted, rest, again = Counting(most=9), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        search_objective(interrupted, pool, RULE, sizes, folder=folder, name="c")
    found = search_objective(rest, pool, RULE, sizes, folder=folder, name="c")
    assert len(interrupted.asked) == 9
    assert not set(interrupted.asked) & set(rest.asked)
    assert len(set(rest.asked)) == len(rest.asked)
    assert search_objective(again, pool, RULE, sizes, folder=folder, name="c") == found
    assert again.asked == []


def test_search_objective_ends_with_the_curve(pool, folder):
    found = search_objective(Counting(), pool, RULE, Sizes(low=5, high=90, trials=6, points=4), folder=folder, name="c")
    assert [point.trial for point in found.selected][:6] == [0, 1, 2, 3, 4, 5]
    assert [point.rows for point in found.random] == [5, 13, 34, 90]
    assert {point.rows for point in found.random} <= {point.rows for point in found.selected}
    assert found.best == min(found.selected, key=lambda point: point.loss)
    assert found.target == OWN
    found.save(folder)
    saved = json.loads((folder / "size_search.json").read_text())
    assert saved["best"]["rows"] == found.best.rows
    assert len(saved["selected"]) == len(found.selected)
    assert (folder / "size_search.png").is_file()
    assert (folder / "size_search.svg").is_file()


@pytest.mark.parametrize("none", [math.nan, math.inf])
def test_search_objective_passes_over_sizes_without_a_finite_loss(pool, folder, none):
    def loss(rows, seed):
        if len(rows) < 10 or (len(rows) > 50 and seed == 1):
            return none
        return Counting()(rows, seed)

    sizes = Sizes(low=5, high=90, trials=6, points=4, seeds=(0, 1))
    found = search_objective(loss, pool, RULE, sizes, folder=folder, name="c")
    there = [point for point in found.selected if 10 <= point.rows <= 50]
    assert found.best == min(there, key=lambda point: point.loss)
    assert all(math.isnan(point.loss) for point in found.selected if point not in there)
    lost = ", ".join(str(rows) for rows in sorted(point.rows for point in found.selected if point not in there))
    assert f"At {lost} selected rows there is no finite loss: passed over." in found.notes
    assert "At 5, 90 random rows there is no finite loss: passed over." in found.notes
    found.save(folder)
    saved = json.loads((folder / "size_search.json").read_text())
    assert saved["selected"][0] | {"losses": {}} == {
        "rows": 5, "loss": None, "per_seed": [None, None], "losses": {}, "trial": 0
    }  # fmt: skip


def test_search_objective_without_any_finite_loss_is_an_error(pool, folder):
    sizes = Sizes(low=5, high=90, trials=6, points=4)
    with pytest.raises(CalibrationError, match="no finite objective loss at any of 5, 13, 34, 90 selected rows"):
        search_objective(lambda rows, seed: math.nan, pool, RULE, sizes, folder=folder, name="c")


def test_search_takes_the_first_rows_by_the_rule(pool):
    first = rows_of(pool, pool.ranked(RULE)[:5])
    assert first["im_quality"][:] == sorted(pool.scores["im_quality"].tolist(), reverse=True)[:5]
    assert first.column_names == ["instruction", "response", *pool.scores]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 5, "high": 101}, "sizes from 5 to 101 of 100 candidates"),
        ({"low": 50, "high": 50}, "need low < high ≤ all"),
    ],
)
def test_search_refuses_bounds_that_do_not_fit(pool, folder, given, message):
    with pytest.raises(CalibrationError, match=message):
        search_objective(Counting(), pool, RULE, Sizes(**given), folder=folder, name="c")


def test_search_objective_without_a_name_is_an_error(pool, folder):
    with pytest.raises(CalibrationError, match="has no name to keep its values under; pass name="):
        search_objective(lambda rows, seed: 0.0, pool, RULE, Sizes(low=5, high=90), folder=folder)


def test_search_objective_of_another_module_is_another_one(pool, folder):
    def named(value, module):
        def objective(rows, seed):
            return value

        objective.__module__, objective.__qualname__ = module, "loss"
        return objective

    sizes = Sizes(low=5, high=90, trials=2, points=2)
    first = search_objective(named(1.0, "mine"), pool, RULE, sizes, folder=folder)
    second = search_objective(named(2.0, "theirs"), pool, RULE, sizes, folder=folder)
    assert (first.best.loss, second.best.loss) == (1.0, 2.0)
    assert first.facts["objective"] == "mine:loss"


def test_sizes_refuse_numbers_out_of_range():
    with pytest.raises(CalibrationError, match="trials=0"):
        Sizes(trials=0)


def test_search_without_flaml_gives_the_pip_line(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install im-datasets\[calibrate\]"):
        list(blend_search(valley, 1, 9, Sizes(low=1)))
