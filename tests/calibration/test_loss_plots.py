"""What is drawn of losses: every seed and mean of a size, every difference with its interval, in reading order."""

import numpy as np
import pytest

from im_datasets.calibration.differences import Difference
from im_datasets.calibration.loss_plots import difference_figure, size_curve_figure
from im_datasets.report.plot_style import COLOURS


def difference(evaluation, baseline, low, high):
    middle = (low + high) / 2
    return Difference(evaluation, 1000, baseline, 1000, 1.0, 1.0 - middle, middle, low, high, (middle,), 1, 0, 0, 0, 1)


def test_size_curve_goes_through_the_means_in_order_of_size():
    (axes,) = size_curve_figure({800: (1.0, 2.0), 100: (3.0, 3.5)}, {100: (4.0,)}, best=800).axes
    selected, random, best = axes.get_lines()
    np.testing.assert_allclose(selected.get_xydata(), [[100, 3.25], [800, 1.5]])
    np.testing.assert_allclose(random.get_xydata(), [[100, 4.0]])
    assert list(best.get_xdata()) == [800, 800]
    seeds, lone_seeds = (dots.get_offsets().tolist() for dots in axes.collections)
    assert seeds == [[100, 3.0], [100, 3.5], [800, 1.0], [800, 2.0]]
    assert lone_seeds == []


def test_size_curve_numbers_sizes_that_are_a_quarter_apart():
    losses = dict.fromkeys((100, 110, 125, 400), (1.0,))
    (axes,) = size_curve_figure(losses, {}, best=100).axes
    assert axes.get_xticks().tolist() == [100, 125, 400]


def test_difference_figure_has_a_panel_for_each_evaluation_set_and_reads_from_above():
    differences = [difference("held", "random", -2, -1), difference("held", "length", 1, 3)]
    figure = difference_figure([*differences, difference("other", "random", -1, 1)])
    held, other = figure.axes
    assert (held.get_title("left"), other.get_title("left")) == ("held", "other")
    assert [label.get_text() for label in difference_figure(differences).axes[0].get_yticklabels()] == [
        "length, 1,000",
        "random, 1,000",
    ]


@pytest.mark.parametrize(("low", "high", "role"), [(-2, -1, "kept"), (1, 2, "cut"), (-1, 1, "muted")])
def test_difference_figure_colours_by_the_verdict(low, high, role):
    (axes,) = difference_figure([difference("held", "random", low, high)]).axes
    interval, point, _ = axes.get_lines()
    assert {interval.get_color(), point.get_color()} == {COLOURS[role]}
    assert list(interval.get_xdata()) == [low, high]
