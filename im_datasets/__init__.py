"""im-datasets: which rows of an instruction dataset are worth training on?

InstructMining (arXiv 2307.06290) for Hugging Face datasets. Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from im_datasets.common.version import __version__

if TYPE_CHECKING:
    from im_datasets.common.errors import ImDatasetsError
    from im_datasets.data.columns import Columns
    from im_datasets.data.source import load_source
    from im_datasets.hub.published import load_selection
    from im_datasets.hub.push import push_selected
    from im_datasets.hub.verify import verify
    from im_datasets.indicators.metric import metric
    from im_datasets.models.embedder import Embedder
    from im_datasets.pipeline import mine
    from im_datasets.rules.instruct_mining import InstructMining
    from im_datasets.rules.linear import LinearRule
    from im_datasets.scoring.record import ScoringRecord
    from im_datasets.scoring.score import score
    from im_datasets.selection.select import Selection, select

_MODULES = {
    "Columns": "data.columns",
    "Embedder": "models.embedder",
    "ImDatasetsError": "common.errors",
    "InstructMining": "rules.instruct_mining",
    "LinearRule": "rules.linear",
    "ScoringRecord": "scoring.record",
    "Selection": "selection.select",
    "load_selection": "hub.published",
    "load_source": "data.source",
    "metric": "indicators.metric",
    "mine": "pipeline",
    "push_selected": "hub.push",
    "score": "scoring.score",
    "select": "selection.select",
    "verify": "hub.verify",
}

__all__ = [
    "Columns",
    "Embedder",
    "ImDatasetsError",
    "InstructMining",
    "LinearRule",
    "ScoringRecord",
    "Selection",
    "__version__",
    "load_selection",
    "load_source",
    "metric",
    "mine",
    "push_selected",
    "score",
    "select",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
