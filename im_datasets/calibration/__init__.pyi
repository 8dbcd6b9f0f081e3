"""The public names; see the package's own stub."""

from .comparison import Comparison, compare
from .experiments.evaluation import Evaluation, load_evaluation
from .experiments.experiment import Experiment
from .experiments.finetuning import Training, finetune
from .experiments.mixtures import Mixing, draw_mixtures
from .experiments.pool import Pool, load_pool, make_pool
from .fit.rule_fit import Fit, fit_rule
from .runs import Run, Runs, append_run, read_runs
from .search import Sizes, SizeSearch, search_objective, search_size

__all__ = [
    "Comparison",
    "Evaluation",
    "Experiment",
    "Fit",
    "Mixing",
    "Pool",
    "Run",
    "Runs",
    "SizeSearch",
    "Sizes",
    "Training",
    "append_run",
    "compare",
    "draw_mixtures",
    "finetune",
    "fit_rule",
    "load_evaluation",
    "load_pool",
    "make_pool",
    "read_runs",
    "search_objective",
    "search_size",
]
