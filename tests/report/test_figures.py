"""Figures: every row is counted, the cut parts the bars, odd columns are drawn, equal scores give equal bytes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_sample import make_scores, make_selection

from im_datasets.report import figures, plot_style
from im_datasets.report.statistics import Scores

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


def make(kept, dropped, cut=None):
    return Scores(
        {name: np.asarray(values, dtype=float) for name, values in kept.items()},
        {name: np.asarray(values, dtype=float) for name, values in dropped.items()},
        cut,
    )


def key_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bar_heights(figure):
    return [patch.get_height() for patch in figure.axes[0].patches]


@given(st.lists(FLOATS, min_size=1, max_size=80), st.data())
@settings(deadline=None)
def test_edges_hold_the_range_and_part_the_rows_at_the_cut(values, data):
    values = np.array(values)
    cut = data.draw(st.sampled_from(values.tolist()))
    edges = figures._edges(values, bins=36, cut=cut)
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= cut < edges[-1]
    at = np.searchsorted(edges, np.nextafter(cut, np.inf))
    assert figures._counts(values, edges)[:at].sum() == (values <= cut).sum()


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_counts_lose_no_row(values):
    values = np.array(values)
    assert figures._counts(values, figures._edges(values, bins=20)).sum() == len(values)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=50))
def test_edges_of_whole_numbers_lie_between_them(values):
    edges = figures._edges(np.array(values, dtype=float), bins=20)
    assert np.allclose(edges % 1, 0.5)
    assert np.diff(edges).min() >= 1


def test_score_distribution_counts_every_scored_row():
    scores = Scores.of(make_selection(200, 50, unscorable=10))
    assert sum(bar_heights(figures.score_distribution(scores))) == 190
    assert key_of(figures.score_distribution(scores)) == ["kept 50", "dropped 140"]


def test_lengths_show_the_share_of_each_group():
    lengths = np.arange(100.0)
    is_kept = (lengths < 10) | (lengths % 2 == 0)
    scores = make({"im_output_length": lengths[is_kept]}, {"im_output_length": lengths[~is_kept]})
    heights = bar_heights(figures.lengths(scores)["im_output_length"])
    assert heights[0] == 100
    assert heights[1:] == pytest.approx([50] * 9, abs=10)


def test_lengths_are_not_drawn_where_they_were_not_measured():
    assert figures.lengths(make({"im_mtld": [1]}, {"im_mtld": [2]})) == {}
    assert figures.lengths(make({"im_output_length": [np.nan]}, {"im_output_length": []})) == {}


@pytest.mark.parametrize(
    ("kept", "dropped", "cut"),
    [
        ([], [], None),
        ([], [0.5, 1.5], None),
        ([0.5], [], 0.5),
        ([1.0, 1.0], [1.0], 1.0),
        ([np.nan], [np.nan], None),
        ([1e-300, 0.0], [1e300], 0.0),
        ([1e9, 1e9 + 1], [1e9 + 2], 1e9 + 1),
    ],
)
def test_figures_stand_tiny_constant_empty_and_huge_columns(kept, dropped, cut):
    names = ("im_output_length", "im_mtld", "im_perplexity", "im_log_loss")
    scores = make(dict.fromkeys(names, kept), dict.fromkeys(names, dropped), cut)
    drawn = [
        figures.score_distribution(scores),
        figures.score_distribution(scores, width=figures.NARROW),
        figures.indicator_panels(scores),
        figures.correlations(scores),
        *figures.lengths(scores).values(),
        *(figures.indicator_panel(scores, name) for name in scores.indicators),
    ]
    for figure in drawn:
        assert plot_style.as_svg(figure, name="x", label="x").startswith("<svg ")
        assert plot_style.as_png(figure, scale=0.5).startswith(b"\x89PNG")


def test_figures_stand_a_selection_without_indicators():
    scores = make({"im_log_loss": [0.1]}, {"im_log_loss": [0.2]}, 0.1)
    assert plot_style.as_png(figures.indicator_panels(scores))
    assert plot_style.as_svg(figures.correlations(scores), name="x", label="x")


def test_as_svg_is_the_same_every_time_and_carries_no_date_colour_font_or_double_id():
    scores = Scores.of(make_selection(60, 20))
    drawings = [plot_style.as_svg(figures.indicator_panel(scores, "im_quality"), name="q", label="a < b") for _ in "ab"]
    assert drawings[0] == drawings[1]
    svg = drawings[0]
    assert 'aria-label="a &lt; b"' in svg
    assert "var(--kept)" in svg
    for gone in ("metadata", "matplotlib", "DejaVu", "<style", "<?xml", *plot_style.COLOURS.values()):
        assert gone not in svg
    other = plot_style.as_svg(figures.indicator_panel(scores, "im_output_length"), name="l", label="")
    ids = [re.findall(r' id="([^"]+)"', text) for text in (svg, other)]
    assert len(set(ids[0])) == len(ids[0])
    assert not set(ids[0]) & set(ids[1])
    for reference in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg):
        assert "".join(reference) in ids[0]


def test_as_png_is_the_same_every_time():
    scores = Scores.of(make_selection(60, 20))
    first, second = (plot_style.as_png(figures.score_distribution(scores)) for _ in "ab")
    assert first == second
    assert b"Software" not in first


def test_scores_of_a_large_dataset_are_drawn_from_columns_only():
    scores = make_scores(2000, 20)
    drawn = figures.score_distribution(Scores(scores, {name: v[:0] for name, v in scores.items()}, None))
    assert sum(bar_heights(drawn)) == 1980


def test_indicator_panels_show_no_axes_without_an_indicator():
    names = ("im_mtld", "im_similarity", "im_quality", "im_perplexity")
    scores = make({name: [1.0, 2.0] for name in names}, {name: [3.0] for name in names})
    assert [axes.axison for axes in figures.indicator_panels(scores).axes] == [True] * 4 + [False] * 2


def test_indicator_panels_count_the_rows_that_are_drawn():
    scores = Scores.of(make_selection(24, 8, unscorable=2))
    assert key_of(figures.indicator_panels(scores)) == ["kept 8", "dropped 14"]
