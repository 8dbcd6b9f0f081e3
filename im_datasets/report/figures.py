"""The figures of report and card, from score columns only.

Each function draws in the colours of ``COLOURS``; ``as_svg`` swaps them for CSS variables, so that a page
shows them light or dark, and ``as_png`` keeps them. The same scores give the same bytes.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from im_datasets.indicators.score_columns import COLUMNS, describe_column
from im_datasets.report.formatting import format_count, format_number
from im_datasets.report.plot_style import COLOURS, blank, number_axis, styled
from im_datasets.report.statistics import FloatArray, Scores, finite, rank_correlations, scored_rows
from im_datasets.rules.linear import LOG_LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LENGTHS = ("im_input_length", "im_output_length")
WIDE, NARROW = 950, 360
"""Widths of the score's histogram, in CSS pixels: shrunk to a telephone, the text of a wide one cannot be read."""

PANEL = 280
_GROUPS = 10


def score_distribution(scores: Scores, *, width: int = WIDE) -> "Figure":
    """How the score is spread, kept and dropped rows stacked, with the cut marked.

    Args:
        scores: Both sides' scores.
        width: In CSS pixels.
    """
    kept, dropped = finite(scores.kept[LOG_LOSS]), finite(scores.dropped[LOG_LOSS])
    figure = blank(width, 300 if width > 600 else 260)
    axes = styled(figure.subplots())
    _key(figure, len(kept), len(dropped))
    values = np.concatenate([kept, dropped])
    if not len(values):
        _nothing(axes, "no row could be scored")
        return figure
    edges = _edges(values, bins=64 if width > 600 else 36, cut=scores.cut)
    kept_rows, dropped_rows = _counts(kept, edges), _counts(dropped, edges)
    _bars(axes, edges, kept_rows, "kept")
    _bars(axes, edges, dropped_rows, "dropped", bottom=kept_rows)
    # Room above the bars for the label of the cut.
    axes.set_ylim(0, float((kept_rows + dropped_rows).max()) * 1.2 or 1.0)
    number_axis(axes.yaxis, 4)
    _value_axis(axes, f"{COLUMNS[LOG_LOSS].name}: {COLUMNS[LOG_LOSS].direction}", edges)
    axes.set_ylabel("rows")
    if scores.cut is not None:
        _mark_cut(axes, scores.cut)
    return figure


def indicator_panel(scores: Scores, name: str) -> "Figure":
    """One indicator: the spread over kept rows against the spread over dropped rows."""
    figure = blank(PANEL, 150)
    _panel(styled(figure.subplots()), scores, name)
    return figure


def indicator_panels(scores: Scores) -> "Figure":
    """Every indicator in one figure, three side by side, for a page that cannot lay them out itself."""
    names, columns = scores.indicators, 3
    rows = max(1, -(-len(names) // columns))
    figure = blank(columns * PANEL + 40, 44 + rows * 196)
    # A label at the end of an axis reaches beyond it, towards the next panel.
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.08)
    # No panel has more marks than the key says: rows without a value are not drawn.
    drawn = (max((len(finite(side[name])) for name in names), default=0) for side in (scores.kept, scores.dropped))
    _key(figure, *drawn)
    if not names:
        _nothing(figure.subplots(), "no indicator was run")
        return figure
    grid = figure.subplots(rows, columns, squeeze=False).flat
    # Names first: zip takes one more of what comes first, and the axes left over are hidden below.
    for name, axes in zip(names, grid, strict=False):
        _panel(styled(axes), scores, name)
        axes.set_title(name, loc="left", fontsize=12, color=COLOURS["ink"], pad=8, parse_math=False)
    for axes in grid:
        axes.set_axis_off()
    return figure


def correlations(scores: Scores) -> "Figure":
    """Spearman's rank correlation of every two indicators and the score, as a triangle."""
    names = [*scores.indicators, LOG_LOSS]
    return correlation_triangle(names, rank_correlations([scores.both(name) for name in names]))


def correlation_triangle(names: Sequence[str], matrix: FloatArray) -> "Figure":
    """Correlations of every two columns, as a triangle of numbers.

    Args:
        names: What the rows and columns stand for, n of them.
        matrix: Shape (n, n), -1..1; NaN where it is not known.
    """
    cell, label = 44, 150
    size = len(names)
    figure = blank(size * cell + label, size * cell + 12)
    axes = figure.subplots()
    axes.set_xlim(0, size + (label - 12) / cell)
    axes.set_ylim(size, 0)
    axes.set_axis_off()
    for i, name in enumerate(names):
        axes.text(i + 0.08, i + 0.5, name, va="center", fontsize=12, color=COLOURS["ink"], parse_math=False)
        for j in range(i):
            _cell(axes, j, i, float(matrix[i, j]))
    return figure


def lengths(scores: Scores) -> "dict[str, Figure]":
    """The share of rows kept, by the length of instruction and of response, of those that were measured."""
    measured = [name for name in LENGTHS if name in scores.kept and scored_rows(scores.both(name))]
    return {name: _length_figure(scores, name) for name in measured}


def _value_axis(axes: "Axes", label: str, edges: FloatArray) -> None:
    number_axis(axes.xaxis, 9 if axes.bbox.width > 500 else 4)
    axes.set_xlim(float(edges[0]), float(edges[-1]))
    axes.set_xlabel(label, labelpad=8)


def _nothing(axes: "Axes", message: str) -> None:
    axes.set_axis_off()
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 13, "color": COLOURS["muted"]}
    axes.text(0.5, 0.5, message, transform=axes.transAxes, **style)


def _edges(values: FloatArray, *, bins: int, cut: float | None = None) -> FloatArray:
    """Bin edges over all but the outermost half percent; with a cut, one edge lies just above it."""
    # A single outlier would press all other rows into one bar.
    low, high = (float(bound) for bound in np.quantile(values, (0.005, 0.995)))
    if cut is not None:
        low, high = min(low, cut), max(high, cut)
    # Narrower than that, neighbouring edges could be one and the same number.
    if high - low <= 1e-9 * max(1.0, abs(low)):
        half = max(0.5, 1e-9 * abs(low))
        low, high = low - half, high + half
    bins = int(min(bins, max(8, 2 * np.sqrt(len(values)))))
    step = (high - low) / bins
    if cut is None and (values == np.round(values)).all():
        return _whole_edges(low, high, step)
    if cut is None:
        return low + step * np.arange(bins + 1, dtype=np.float64)
    # The worst kept row scores the cut itself and belongs to the bar on its left.
    above = float(np.nextafter(cut, np.inf))
    # At least one bin below: next to 0 the quotient of so small a difference may vanish.
    first = above - max(1, math.ceil((above - low) / step)) * step
    edges = first + step * np.arange(bins + 2, dtype=np.float64)
    edges[np.abs(edges - above).argmin()] = above
    return edges


def _whole_edges(low: float, high: float, step: float) -> FloatArray:
    """Edges halfway between whole numbers, so that every bin holds as many of them."""
    width, first = math.ceil(step), math.ceil(low)
    bins = max(1, math.ceil((math.floor(high) - first + 1) / width))
    return first - 0.5 + width * np.arange(bins + 1, dtype=np.float64)


def _counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Rows per bin; what lies beyond is counted in the outermost bins."""
    inside = np.searchsorted(edges, values, side="right") - 1
    rows: FloatArray = np.zeros(len(edges) - 1)
    np.add.at(rows, np.clip(inside, 0, len(edges) - 2), 1)
    return rows


def _bars(axes: "Axes", edges: FloatArray, rows: FloatArray, side: str, bottom: FloatArray | float = 0) -> None:
    widths = np.diff(edges)
    lefts = edges[:-1] + 0.06 * widths
    axes.bar(lefts, rows, width=0.88 * widths, bottom=bottom, align="edge", color=COLOURS[side])


def _key(figure: "Figure", kept: int, dropped: int) -> None:
    """Which colour is which side, and how many rows each has."""
    from matplotlib.lines import Line2D

    sides = {"kept": kept, "dropped": dropped}
    dots = [Line2D([], [], marker="o", markersize=8, color=COLOURS[side], linewidth=0) for side in sides]
    labels = [f"{side} {format_count(rows)}" for side, rows in sides.items()]
    figure.legend(
        dots,
        labels,
        loc="outside upper left",
        ncols=2,
        frameon=False,
        fontsize=12,
        labelcolor=COLOURS["ink"],
        handletextpad=0.1,
        columnspacing=1.2,
    )


def _mark_cut(axes: "Axes", cut: float) -> None:
    axes.axvline(cut, color=COLOURS["cut"], linewidth=1.5, ymax=1.0)
    low, high = axes.get_xlim()
    right = (cut - low) / (high - low) > 0.5
    axes.annotate(
        f"cut {format_number(cut)}",
        (cut, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-7 if right else 7, -6),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=12,
        color=COLOURS["cut"],
        bbox={"facecolor": COLOURS["surface"], "edgecolor": "none", "pad": 2},
    )


def _panel(axes: "Axes", scores: Scores, name: str) -> None:
    values = finite(scores.both(name))
    axes.set_yticks([])
    if not len(values):
        _nothing(axes, "no row could be scored")
        return
    logarithmic = _spans_decades(values, describe_column(name).low)
    to_axis = np.log10 if logarithmic else np.asarray
    edges = _edges(to_axis(values), bins=36)
    for side in ("dropped", "kept"):
        _density(axes, edges, to_axis(finite(getattr(scores, side)[name])), side)
    axes.set_ylim(0)
    _value_axis(axes, describe_column(name).unit + (", log scale" if logarithmic else ""), edges)
    if logarithmic:
        _decade_ticks(axes)


def _density(axes: "Axes", edges: FloatArray, values: FloatArray, side: str) -> None:
    """One side as shares of itself, so that a small side shows as well; a mark at the median."""
    if not len(values):
        return
    shares = _counts(values, edges) / len(values)
    axes.stairs(shares, edges, fill=True, color=COLOURS[side], alpha=0.22 if side == "kept" else 0.45, linewidth=0)
    axes.stairs(shares, edges, color=COLOURS[side], linewidth=1.6)
    median = float(np.clip(np.median(values), edges[0], edges[-1]))
    axes.plot([median], [0], marker="^", markersize=7, color=COLOURS[side], clip_on=False, zorder=5)


def _spans_decades(values: FloatArray, low: float) -> bool:
    """Whether a column that cannot be negative is spread over more than an order of magnitude."""
    if low < 0 or values.min() <= 0:
        return False
    small, large = np.quantile(values, (0.01, 0.99))
    return bool(large > 20 * small)


def _decade_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    low, high = axes.get_xlim()
    steps = (1, 10) if high - low > 2.5 else (1, 3, 10)
    ticks = [np.log10(step) + decade for decade in range(int(np.floor(low)), int(np.ceil(high)) + 1) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator(sorted({t for t in ticks if low <= t <= high})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(10**value, 2)))


def _cell(axes: "Axes", x: int, y: int, value: float) -> None:
    from matplotlib.patches import Rectangle

    is_number = np.isfinite(value)
    side = "kept" if is_number and value >= 0 else "cut"
    alpha = 0.08 + 0.55 * abs(value) if is_number else 0.05
    axes.add_patch(
        Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, color=COLOURS[side if is_number else "muted"], alpha=alpha, lw=0)
    )
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") if is_number else "–"
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=11, color=COLOURS["ink"])


def _length_figure(scores: Scores, name: str) -> "Figure":
    """Ten groups of rows by length, as equal as ties allow, and the share kept of each."""
    figure = blank(400, 250)
    axes = styled(figure.subplots())
    kept, dropped = finite(scores.kept[name]), finite(scores.dropped[name])
    values = np.concatenate([kept, dropped])
    # Edges are lengths that occur; of equal ones, where a length is frequent, one is left.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _GROUPS + 1), method="lower"))
    edges = np.append(edges[:-1], np.nextafter(edges[-1], np.inf)) if len(edges) > 1 else np.append(edges, edges + 1)
    kept_rows, dropped_rows = _counts(kept, edges), _counts(dropped, edges)
    shares = 100 * kept_rows / np.maximum(kept_rows + dropped_rows, 1)
    overall = 100 * len(kept) / len(values)
    places = np.arange(len(shares))
    axes.bar(places, shares, width=0.8, color=COLOURS["kept"])
    axes.axhline(overall, color=COLOURS["cut"], linewidth=1.2, dashes=(4, 3))
    axes.set_ylim(0, max(float(shares.max()), overall) * 1.15 or 1.0)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_xticks(places, [format_number(edge) for edge in edges[:-1]])
    number_axis(axes.yaxis, 4)
    axes.set_xlabel(f"{describe_column(name).unit}, from", labelpad=8)
    title = f"% kept by {describe_column(name).meaning}"
    axes.set_title(title, loc="left", fontsize=12, color=COLOURS["ink"], pad=14)
    axes.set_title(f"- - all {overall:.1f} %", loc="right", fontsize=11, color=COLOURS["cut"], pad=14)
    return figure
