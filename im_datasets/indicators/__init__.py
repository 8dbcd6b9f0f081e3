"""Pairs go in; one column of floats or more comes out of each indicator, one value per row, in row order.

Classes are imported when first used, so that importing the package stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im_datasets.indicators.base import Indicator
    from im_datasets.indicators.function import FunctionIndicator
    from im_datasets.indicators.knn.indicator import KNNDistance
    from im_datasets.indicators.length import Length
    from im_datasets.indicators.likelihood.indicator import IFD, Perplexity
    from im_datasets.indicators.mtld import MTLD
    from im_datasets.indicators.quality import Quality
    from im_datasets.indicators.reward.indicator import Reward
    from im_datasets.indicators.score_columns import COLUMNS, Column
    from im_datasets.indicators.similarity import Similarity
    from im_datasets.indicators.unieval import UniEval

_MODULES = {
    "COLUMNS": "score_columns",
    "Column": "score_columns",
    "FunctionIndicator": "function",
    "IFD": "likelihood.indicator",
    "Indicator": "base",
    "KNNDistance": "knn.indicator",
    "Length": "length",
    "MTLD": "mtld",
    "Perplexity": "likelihood.indicator",
    "Quality": "quality",
    "Reward": "reward.indicator",
    "Similarity": "similarity",
    "UniEval": "unieval",
}

__all__ = [
    "COLUMNS",
    "IFD",
    "MTLD",
    "Column",
    "FunctionIndicator",
    "Indicator",
    "KNNDistance",
    "Length",
    "Perplexity",
    "Quality",
    "Reward",
    "Similarity",
    "UniEval",
]


def __getattr__(name: str) -> Any:
    """Import an indicator's module when its class is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
