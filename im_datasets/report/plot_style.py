"""What all figures share: colours, sizes, axes, and writing a figure as SVG or PNG."""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = {
    "surface": "#ffffff",
    "ink": "#1f2328",
    "muted": "#666c74",
    "line": "#e4e1dc",
    "kept": "#0e7a6d",
    "dropped": "#b5afa6",
    "cut": "#b3541e",
}
"""Role → colour on paper, and the name of the CSS variable that takes its place on a page."""


def as_svg(figure: "Figure", *, name: str, label: str) -> str:
    """A figure as inline SVG that follows the page's colours and font.

    Args:
        figure: What to show.
        name: Unlike any other figure's on the page; keeps their inner ids apart.
        label: What a screen reader says.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # Without a salt matplotlib draws ids at random; as text, labels take the page's font and can be searched.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    return _inline(buffer.getvalue(), name, label)


def as_png(figure: "Figure", *, scale: float = 2) -> bytes:
    """A figure as PNG.

    Args:
        figure: What to show.
        scale: Image pixels per CSS pixel.
    """
    buffer = io.BytesIO()
    # The name of the software holds its version, with which the bytes would change.
    figure.savefig(buffer, format="png", dpi=72 * scale, metadata={"Software": None})
    return buffer.getvalue()


def _inline(svg: str, name: str, label: str) -> str:
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    # Several figures share a page, where an id may stand once; only clip paths, with salted ids, are referred to.
    body = re.sub(r' id="[A-Za-z_]\w*?(?:\.\w+)?_\d+"', "", body)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*|font-size: ([\d.]+)px; font-family: [^;\"]*", r"font-size: \1\2px", body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*"', "", body)
    # The page switches its variables between light and dark.
    for role, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{role})")
    body = re.sub(r"\n\s*", "\n", body)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" style="max-width:{width}px"'
    return f'<svg {size} role="img" aria-label="{escape(label)}" data-figure="{escape(name)}">{body}'


def blank(width: int, height: int) -> "Figure":
    """An empty figure of so many CSS pixels, whose axes make room for their labels."""
    from matplotlib.figure import Figure

    size = (width / 72, height / 72)
    return Figure(figsize=size, dpi=72, facecolor=COLOURS["surface"], layout="constrained")


def styled(axes: "Axes") -> "Axes":
    """Axes with nothing but a line below and labels in the colours of the page."""
    axes.set_facecolor("none")
    for place, spine in axes.spines.items():
        spine.set_visible(place == "bottom")
        spine.set_color(COLOURS["muted"])
    axes.tick_params(length=0, pad=6, labelsize=11, labelcolor=COLOURS["muted"])
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(COLOURS["muted"])
        axis.label.set_fontsize(11)
    axes.set_axisbelow(True)
    return axes


def number_axis(axis: Any, ticks: int) -> None:
    """Give an axis at most so many round ticks, and a vertical one its grid."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(ticks, integer=False, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    if axis.axis_name == "y":
        axis.grid(visible=True, color=COLOURS["line"], linewidth=1)
