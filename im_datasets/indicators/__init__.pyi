"""The public names; see the package's own stub."""

from .base import Indicator
from .function import FunctionIndicator
from .knn.indicator import KNNDistance
from .length import Length
from .likelihood.indicator import IFD, Perplexity, ReversedIFD
from .mtld import MTLD
from .quality import Quality
from .reward.indicator import Reward
from .score_columns import COLUMNS, Column
from .similarity import Similarity
from .target.indicator import TargetSimilarity
from .unieval import UniEval

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
    "ReversedIFD",
    "Reward",
    "Similarity",
    "TargetSimilarity",
    "UniEval",
]
