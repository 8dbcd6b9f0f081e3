"""Finetuning runs go in; a rule of one's own comes out, the subset size, and how the selected rows compare.

Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from im_datasets.calibration.comparison import Comparison, compare
    from im_datasets.calibration.experiments.evaluation import Evaluation, load_evaluation
    from im_datasets.calibration.experiments.experiment import Experiment
    from im_datasets.calibration.experiments.finetuning import Training, finetune
    from im_datasets.calibration.experiments.mixtures import Mixing, draw_mixtures
    from im_datasets.calibration.experiments.pool import Pool, load_pool, make_pool
    from im_datasets.calibration.fit.rule_fit import Fit, fit_rule
    from im_datasets.calibration.runs import Run, Runs, append_run, read_runs
    from im_datasets.calibration.search import Sizes, SizeSearch, search_objective, search_size

_MODULES = {
    "Comparison": "comparison",
    "Evaluation": "experiments.evaluation",
    "Experiment": "experiments.experiment",
    "Fit": "fit.rule_fit",
    "Mixing": "experiments.mixtures",
    "Pool": "experiments.pool",
    "Run": "runs",
    "Runs": "runs",
    "SizeSearch": "search",
    "Sizes": "search",
    "Training": "experiments.finetuning",
    "append_run": "runs",
    "compare": "comparison",
    "draw_mixtures": "experiments.mixtures",
    "finetune": "experiments.finetuning",
    "fit_rule": "fit.rule_fit",
    "load_evaluation": "experiments.evaluation",
    "load_pool": "experiments.pool",
    "make_pool": "experiments.pool",
    "read_runs": "runs",
    "search_objective": "search",
    "search_size": "search",
}

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


def __getattr__(name: str) -> Any:
    """Import a public name's module when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
