"""Drawn losses: of a comparison against its baselines, of a size search against the number of rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from im_datasets.calibration.differences import Difference
from im_datasets.report.plot_style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERDICT_COLOURS = {"better": COLOURS["kept"], "worse": COLOURS["cut"]}


def difference_figure(differences: Sequence[Difference]) -> "Figure":
    """One panel per evaluation set: the difference to each baseline, with its interval, and the line of none."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each.evaluation for each in differences))
    most = max((sum(each.evaluation == name for each in differences) for name in names), default=1)
    figure = Figure(figsize=(1.5 + 4.5 * len(names), 1.2 + 0.3 * most), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        # Drawn from below; read from above.
        panel = [each for each in reversed(differences) if each.evaluation == name]
        for place, each in enumerate(panel):
            colour = _VERDICT_COLOURS.get(each.verdict, COLOURS["muted"])
            axes.plot([each.low, each.high], [place, place], color=colour, linewidth=2)
            axes.plot([each.difference], [place], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(panel)), [f"{each.baseline}, {each.size:,}" for each in panel])
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
        _plain(axes)
        axes.set_title(name, loc="left", fontsize=11, color=COLOURS["ink"])
        axes.set_xlabel("loss of selected − loss of baseline, nats per token; left of 0: selected is better")
        axes.xaxis.label.set_fontsize(8)
    return figure


def size_curve_figure(
    selected: Mapping[int, Sequence[float]], random: Mapping[int, Sequence[float]], best: int
) -> "Figure":
    """Loss against the number of rows, selected and random; a dot for every seed, a line through the means.

    Args:
        selected: Number of selected rows → each seed's loss.
        random: Number of random rows → each seed's loss.
        best: The number that is marked.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for losses, colour, label in ((selected, COLOURS["kept"], "selected"), (random, COLOURS["dropped"], "random")):
        sizes = sorted(losses)
        means = [float(np.mean(losses[size])) for size in sizes]
        axes.plot(sizes, means, "-o", color=colour, label=label, markersize=5)
        dots = [(size, loss) for size in sizes for loss in losses[size] if len(losses[size]) > 1]
        axes.scatter([x for x, _ in dots], [y for _, y in dots], s=9, color=colour, alpha=0.5)
    axes.axvline(best, color=COLOURS["cut"], linewidth=1)
    axes.annotate(f"{best:,}", (best, 1), xycoords=("data", "axes fraction"), va="top", color=COLOURS["cut"])
    # Sizes are tried evenly in logarithm.
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks: list[int] = []
    for size in sorted({*selected, *random}):
        # A quarter apart, so that their numbers do not meet.
        if not ticks or size >= 1.25 * ticks[-1]:
            ticks.append(size)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("rows trained on")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def _plain(axes: Any) -> None:
    for place in ("top", "right"):
        axes.spines[place].set_visible(False)
    axes.grid(visible=True, color=COLOURS["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, labelcolor=COLOURS["muted"])
