"""The base of the `evaluate` modules in ``metrics/``: rows in, per-row values, mean and count out.

A module names its indicator, its words and its settings; all else stands here. The rows go through the
indicator's batch function, so a module's values are those of ``Dataset.map``. Also where the shipped modules lie, and
loading one by its name.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from math import fsum, nan
from pathlib import Path
from typing import Any, ClassVar, Protocol

import datasets
import evaluate

from im_datasets.common.errors import ModuleNameError
from im_datasets.data.conversations import mark_half_pairs
from im_datasets.indicators.base import Batch
from im_datasets.indicators.score_columns import UNSCORABLE

MEAN, UNSCORED = "mean_", "unscored_"
"""Before a column's name: the mean over its scored rows, and how many rows were not scored."""

_NO_INSTRUCTION = "Answer."
"""Stands for the instruction where a module does not read one: a row without any could not be scored."""


class BatchFunction(Protocol):
    """An indicator or a rule: a batch of rows → columns."""

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the columns a call returns."""

    def __call__(self, batch: Batch) -> Mapping[str, list[Any]]:
        """One value per row and column."""


# Abstract, because evaluate.load takes the first module class it finds in a file that is not.
class IndicatorMetric(evaluate.Metric, ABC):  # type: ignore[misc]
    """An indicator as an `evaluate` metric.

    Settings are the parameters of the module's ``_compute``; they may be given when the module is loaded, when it
    computes, or both: what ``compute`` gets goes before what ``load`` got, and None leaves it at that.

    Args:
        config_name: As ``evaluate.load`` hands it over; changes nothing.
        options: What ``evaluate.load`` hands over, and settings.

    Raises:
        TypeError: An option is neither.
    """

    reads_instruction: ClassVar[bool] = True
    """Whether ``references`` are an input."""

    reports: ClassVar[tuple[str, ...]] = ()
    """The columns to report; none stands for all that the batch function writes."""

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        settings = [name for name in signature(self._compute).parameters if name not in ("predictions", "references")]
        self.loaded_with = {name: options.pop(name) for name in settings if name in options}
        own = signature(evaluate.EvaluationModule.__init__).parameters
        if unknown := [name for name in options if name not in own]:
            accepted = f"its settings are {', '.join(settings)}" if settings else "it has no settings"
            raise TypeError(f"{type(self).__name__} was loaded with {', '.join(unknown)}; {accepted}")
        super().__init__(config_name, **options)

    @abstractmethod
    def batch_function(self, **settings: Any) -> BatchFunction:
        """The indicator or rule with these settings."""

    def describe(self, description: str, citation: str, inputs: str, urls: Sequence[str]) -> evaluate.MetricInfo:
        """What ``_info`` returns: what is measured, BibTeX, the help of ``compute``, and papers to read further."""
        names = ("predictions", "references") if self.reads_instruction else ("predictions",)
        return evaluate.MetricInfo(
            description=description,
            citation=citation,
            inputs_description=inputs,
            features=datasets.Features({name: datasets.Value("string") for name in names}),
            reference_urls=list(urls),
        )

    def measure(
        self, predictions: Sequence[str], references: Sequence[str] | None = None, **settings: Any
    ) -> dict[str, Any]:
        """Score the rows, as ``_compute`` returns it.

        Args:
            predictions: Responses, shape (n,).
            references: Instructions, shape (n,); None where the module reads none.
            settings: Settings by name; None takes what the module was loaded with, else the default.

        Returns:
            For every column: its n values under its name, NaN where a row could not be scored; the mean of the
            others under ``mean_<column>``, NaN where there are none; the number of NaN under ``unscored_<column>``.

        Raises:
            ImDatasetsError: A setting is out of its range, or a model cannot be had.
        """
        computed_with = {name: value for name, value in settings.items() if value is not None}
        function = self.batch_function(**{**self.loaded_with, **computed_with})
        # Columns of these names are read as a pair without a question.
        instructions = [_NO_INSTRUCTION] * len(predictions) if references is None else list(references)
        batch = {"instruction": instructions, "response": list(predictions)}
        if hasattr(function, "fit"):
            function = function.fit(datasets.Dataset.from_dict(batch))
        return summarise(function(batch), self.reports or function.writes)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add rows, each a string or a list of messages; ``references`` where the module reads them.

        Raises:
            ValueError: Rows of another type, a missing input, inputs of different lengths, or another name.
        """
        inputs = {"predictions": predictions, "references": references}
        rows = {name: as_strings(name, inputs[name]) for name in self._feature_names()}
        if len({len(column) for column in rows.values()}) > 1:
            counts = " and ".join(f"{name} ({len(column)})" for name, column in rows.items())
            raise ValueError(f"Mismatch in the number of {counts}")
        super().add_batch(**rows, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one row, as ``add_batch`` adds several; ``predictions`` and ``references`` are taken for its names too.

        Raises:
            ValueError: A row of another type, a missing input, or another name.
        """
        inputs = {"predictions": prediction, "references": reference, **kwargs}
        row = {name: as_strings(name, [inputs.pop(name)])[0] for name in self._feature_names()}
        # A module that reads no instruction takes a reference and leaves it alone.
        inputs.pop("references", None)
        super().add(prediction=row["predictions"], reference=row.get("references"), **inputs)


def summarise(scores: Mapping[str, list[Any]], columns: Iterable[str]) -> dict[str, Any]:
    """Values, mean and count of unscored rows of each column.

    Args:
        scores: Column → n floats, NaN where a row could not be scored.
        columns: Those to report; the column of reasons is left out.

    Example:
        >>> summarise({"im_mtld": [8.0, float("nan"), 4.0]}, ["im_mtld"])
        {'im_mtld': [8.0, nan, 4.0], 'mean_im_mtld': 6.0, 'unscored_im_mtld': 1}
    """
    result: dict[str, Any] = {}
    for column in columns:
        if column != UNSCORABLE:
            scored = [value for value in scores[column] if value == value]
            result[column] = list(scores[column])
            result[MEAN + column] = fsum(scored) / len(scored) if scored else nan
            result[UNSCORED + column] = len(scores[column]) - len(scored)
    return result


def as_strings(name: str, rows: Any) -> list[str]:
    """The rows as `evaluate` stores them: text as it is, messages as JSON, none of both as an empty string.

    Args:
        name: The input, for messages.
        rows: Strings, None, or lists of messages.

    Raises:
        ValueError: Anything else.

    Example:
        >>> as_strings("references", ["Hi!", None, [{"role": "user", "content": "Hi!"}]])
        ['Hi!', '', '[{"role": "user", "content": "Hi!"}]']
    """
    if rows is None:
        raise ValueError(f"Evaluation module inputs are missing: [{name!r}]; pass {name}=[…] as strings")
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise ValueError(f"{name} is one {type(rows).__name__}; pass a list with one string per row")
    return [_as_string(name, place, row) for place, row in enumerate(rows)]


def _as_string(name: str, place: int, row: Any) -> str:
    if row is None or isinstance(row, str):
        return mark_half_pairs(row or "")
    if isinstance(row, list | tuple) and all(isinstance(message, Mapping) for message in row):
        return mark_half_pairs(json.dumps([dict(message) for message in row], ensure_ascii=False)) if row else ""
    raise ValueError(
        "Predictions and/or references don't match the expected format.\n"
        f"{name}[{place}] is {row!r} of type {type(row).__name__}; a row is a string, or a list of messages "
        "[{'role': …, 'content': …}]"
    )


PREFIX = "im_"


def modules_folder() -> Path:
    """The folder of the modules, in an installed package or in a checkout.

    Raises:
        ModuleNameError: The installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "metrics", package.parent / "metrics"):
        if (folder / "im_length" / "im_length.py").is_file():
            return folder
    raise ModuleNameError(f"the evaluate modules are missing from {package / 'metrics'}; reinstall im-datasets")


def module_names() -> list[str]:
    """Names of the modules, sorted.

    Example:
        >>> "im_mtld" in module_names()
        True
    """
    return sorted(p.name for p in modules_folder().glob(f"{PREFIX}*") if (p / f"{p.name}.py").is_file())


def module_path(name: str) -> Path:
    """The folder of a module, as ``evaluate.load`` takes it.

    Args:
        name: A module's name, with or without ``im_``.

    Raises:
        ModuleNameError: No such module.

    Example:
        >>> module_path("mtld").name
        'im_mtld'
    """
    full = PREFIX + name.removeprefix(PREFIX)
    if full not in module_names():
        raise ModuleNameError(f"no evaluate module {name!r}; known: {', '.join(module_names())}")
    return modules_folder() / full


def metric(name: str, config_name: str | None = None, **options: Any) -> Any:
    """Load a shipped module with `evaluate`, wherever this package is installed.

    Args:
        name: A module's name, with or without ``im_``.
        config_name: As ``evaluate.load`` takes it; changes nothing.
        options: Further options of ``evaluate.load`` (``keep_in_memory``, ``num_process``, …), and settings of the
            module, which are then its defaults.

    Returns:
        The ``evaluate.EvaluationModule``.

    Raises:
        ModuleNameError: No such module.
        TypeError: An option that neither `evaluate` nor the module knows.

    Example:
        >>> mtld = metric("mtld", keep_in_memory=True)
        >>> mtld.compute(predictions=["To be, or not to be, said he."])["im_mtld"]
        [8.48]
    """
    return evaluate.load(str(module_path(name)), config_name, **options)
