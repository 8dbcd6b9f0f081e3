"""The figures of a size search and of a comparison, as PNG and SVG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from im_datasets.report.plot_style import COLOURS, as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VERDICT_COLOURS = {"better": COLOURS["kept"], "worse": COLOURS["cut"]}


class PlottedDifference(Protocol):
    """What is drawn of a comparison: see ``comparison.Difference``."""

    @property
    def evaluation(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def baseline(self) -> str: ...  # noqa: D102
    @property
    def difference(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def verdict(self) -> str: ...  # noqa: D102


class PlottedPoint(Protocol):
    """What is drawn of a search: see ``search.Point``."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def per_seed(self) -> Sequence[float]: ...  # noqa: D102


def difference_figure(differences: Sequence[PlottedDifference]) -> "Figure":
    """One panel per evaluation set: the difference to each baseline, with its interval, and the line of none."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each.evaluation for each in differences))
    most = max((sum(each.evaluation == name for each in differences) for name in names), default=1)
    figure = Figure(figsize=(1.5 + 4.5 * len(names), 1.2 + 0.3 * most), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        _differences(axes, [each for each in differences if each.evaluation == name])
        axes.set_title(name, loc="left", fontsize=11, color=COLOURS["ink"])
        axes.set_xlabel("loss of selected − loss of baseline, nats per token; left of 0: selected is better")
        axes.xaxis.label.set_fontsize(8)
    return figure


def curve_figure(selected: Sequence[PlottedPoint], random: Sequence[PlottedPoint], best: int | None) -> "Figure":
    """Loss against the number of rows, selected and random; a dot for every seed, a line through the means."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for points, colour, label in ((selected, COLOURS["kept"], "selected"), (random, COLOURS["dropped"], "random")):
        ordered = sorted(points, key=lambda point: point.rows)
        axes.plot([p.rows for p in ordered], [p.loss for p in ordered], "-o", color=colour, label=label, markersize=5)
        dots = [(p.rows, loss) for p in ordered for loss in p.per_seed if len(p.per_seed) > 1]
        axes.scatter([x for x, _ in dots], [y for _, y in dots], s=9, color=colour, alpha=0.5)
    if best is not None:
        axes.axvline(best, color=COLOURS["cut"], linewidth=1)
        axes.annotate(f"{best:,}", (best, 1), xycoords=("data", "axes fraction"), va="top", color=COLOURS["cut"])
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = sorted({point.rows for point in (*selected, *random)})
    axes.set_xticks(_apart(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("rows trained on")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as ``path.png`` and ``path.svg``."""
    from matplotlib import rc_context

    path.with_suffix(".png").write_bytes(as_png(figure))
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path.with_suffix(".svg"), format="svg", metadata={"Date": None})


def _differences(axes: "Axes", differences: Sequence[PlottedDifference]) -> None:
    for place, each in enumerate(reversed(differences)):
        colour = _VERDICT_COLOURS.get(each.verdict, COLOURS["muted"])
        axes.plot([each.low, each.high], [place, place], color=colour, linewidth=2)
        axes.plot([each.difference], [place], "o", color=colour, markersize=5)
    labels = [f"{each.baseline}, {each.size:,}" for each in reversed(differences)]
    axes.set_yticks(range(len(labels)), labels)
    axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
    _plain(axes)


def _plain(axes: Any) -> None:
    for place in ("top", "right"):
        axes.spines[place].set_visible(False)
    axes.grid(visible=True, color=COLOURS["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, labelcolor=COLOURS["muted"])


def _apart(ticks: Sequence[int]) -> list[int]:
    """Ticks that are at least a quarter apart, so that their numbers do not meet."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= 1.25 * kept[-1]:
            kept.append(tick)
    return kept
