"""im-datasets: which rows of an instruction dataset are worth training on?

InstructMining (arXiv 2307.06290) for Hugging Face datasets. Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im_datasets.columns import Columns
    from im_datasets.embedding import Embedder
    from im_datasets.errors import ImDatasetsError
    from im_datasets.hub import push_selected
    from im_datasets.metric_modules import metric
    from im_datasets.mining import InstructMining
    from im_datasets.pipeline import mine
    from im_datasets.published import load_selection
    from im_datasets.record import ScoringRecord
    from im_datasets.rule import LinearRule
    from im_datasets.scoring import score
    from im_datasets.selection import Selection, select
    from im_datasets.source import load_source
    from im_datasets.verification import verify

__version__ = "0.1.0"

_MODULES = {
    "Columns": "columns",
    "Embedder": "embedding",
    "ImDatasetsError": "errors",
    "InstructMining": "mining",
    "LinearRule": "rule",
    "ScoringRecord": "record",
    "Selection": "selection",
    "load_selection": "published",
    "load_source": "source",
    "metric": "metric_modules",
    "mine": "pipeline",
    "push_selected": "hub",
    "score": "scoring",
    "select": "selection",
    "verify": "verification",
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
