"""A result → its files: plain data as JSON, a figure as PNG and SVG."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.storage import write_bytes, write_text, written_whole
from im_datasets.report.plot_style import as_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_result(path: Path, data: Mapping[str, Any], figure: "Figure") -> None:
    """Write ``path.json``, ``path.png`` and ``path.svg``.

    Args:
        path: The files' name without an ending; its folder is made when it is missing.
        data: Plain data; keys become texts, and what is not finite becomes null.
        figure: What shows it.
    """
    from matplotlib import rc_context

    text = json.dumps(_without_nan(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path.with_suffix(".json"), text + "\n")
    write_bytes(path.with_suffix(".png"), as_png(figure))
    # Without a salt of our own and without a date the same result would give another file each time.
    with rc_context({"svg.hashsalt": path.name}), written_whole(path.with_suffix(".svg")) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
