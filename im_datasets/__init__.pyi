"""The public names, for type checkers and for the lazy imports of ``__init__``."""

from .common.errors import ImDatasetsError
from .common.version import __version__
from .data.columns import Columns
from .data.source import load_source
from .hub.published import load_selection
from .hub.push import push_selected
from .hub.verification.verify import verify
from .indicators.metric import metric
from .models.embedder import Embedder
from .pipeline import mine
from .rules.instruct_mining import InstructMining
from .rules.linear import LinearRule
from .scoring.record import ScoringRecord
from .scoring.score import score
from .selection.select import Selection, select

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
