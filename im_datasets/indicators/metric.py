"""The base of the `evaluate` modules in ``metrics/``: rows in, per-row values, mean and count out.

A module names its indicator, its words and its settings; all else stands here. The rows go through the
indicator's batch function, so a module's values are those of ``Dataset.map``. Finding the shipped modules is
left to ``metric_modules``.
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

from im_datasets.common.errors import RuleError
from im_datasets.data.conversations import mark_half_pairs
from im_datasets.indicators.base import COLUMNS, UNSCORABLE, Batch, Column
from im_datasets.rules.linear import LinearRule

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
        known = signature(evaluate.EvaluationModule.__init__).parameters
        if unknown := [name for name in options if name not in known]:
            accepted = f"its settings are {', '.join(settings)}" if settings else "it has no settings"
            raise TypeError(f"{type(self).__name__} was loaded with {', '.join(unknown)}; {accepted}")
        super().__init__(config_name, **options)

    @abstractmethod
    def batch_function(self, **settings: Any) -> BatchFunction:
        """The indicator or rule with these settings."""

    def describe(self, description: str, citation: str, inputs: str, urls: Sequence[str]) -> evaluate.MetricInfo:
        """What ``_info`` returns.

        Args:
            description: What the module measures.
            citation: BibTeX.
            inputs: Args, Returns and Examples of ``compute``.
            urls: Papers and pages to read further.
        """
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
        given = {name: value for name, value in settings.items() if value is not None}
        function = self.batch_function(**{**self.loaded_with, **given})
        instructions = [_NO_INSTRUCTION] * len(predictions) if references is None else list(references)
        batch = {"instruction": instructions, "response": list(predictions)}
        if hasattr(function, "fit"):
            function = function.fit(datasets.Dataset.from_dict(batch))
        return summarise(function(batch), self.reports or function.writes)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add rows.

        Args:
            predictions: Responses: strings, or lists of messages.
            references: Instructions: strings, or lists of messages; needed where the module reads them.
            kwargs: Refused by name.

        Raises:
            ValueError: Rows of another type, a missing input, or inputs of different lengths.
        """
        given = {"predictions": predictions, "references": references}
        rows = {name: as_strings(name, given[name]) for name in self._feature_names()}
        if len({len(column) for column in rows.values()}) > 1:
            counts = " and ".join(f"{name} ({len(column)})" for name, column in rows.items())
            raise ValueError(f"Mismatch in the number of {counts}")
        super().add_batch(**rows, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one row.

        Args:
            prediction: The response: a string, or a list of messages.
            reference: The instruction: a string, or a list of messages; needed where the module reads it.
            kwargs: The same as ``predictions`` and ``references``; other names are refused.

        Raises:
            ValueError: A row of another type, or a missing input.
        """
        given = {"predictions": prediction, "references": reference, **kwargs}
        rows = {name: [given.pop(name)] for name in self._feature_names()}
        given.pop("references", None)
        one = {name: as_strings(name, row)[0] for name, row in rows.items()}
        super().add(prediction=one["predictions"], reference=one.get("references"), **given)


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


def read_rule(rule: LinearRule | Mapping[str, Any] | str | Path) -> LinearRule:
    """A rule from all that a user may have in hand.

    Args:
        rule: A LinearRule, a shipped rule's name, the path of a rule's JSON, the JSON itself, or what it holds.

    Raises:
        RuleError: No such name or file, or not a rule.

    Example:
        >>> read_rule("v2").name
        'v3'
    """
    if isinstance(rule, LinearRule):
        return rule
    if isinstance(rule, Mapping):
        return LinearRule.from_dict(rule)
    if not str(rule).lstrip().startswith("{"):
        return LinearRule.load(rule)
    try:
        return LinearRule.from_dict(json.loads(str(rule)))
    except ValueError as error:
        raise RuleError(f"the rule is not JSON: {error}") from error


def output_table(columns: Iterable[str]) -> str:
    """The table of a card's output values, from the one table of columns.

    Args:
        columns: Names of columns.

    Example:
        >>> print(output_table(["im_mtld"]))
        | key | value of a row | unit | range | good is |
        |---|---|---|---|---|
        | `im_mtld` | lexical diversity of the response | words | 0 to ∞ | higher is better |
    """
    lines = ["| key | value of a row | unit | range | good is |", "|---|---|---|---|---|"]
    for name in columns:
        column = COLUMNS[name]
        lines.append(f"| `{name}` | {column.meaning} | {column.unit} | {span(column)} | {column.direction} |")
    return "\n".join(lines)


def span(column: Column) -> str:
    """A column's range for people.

    Example:
        >>> span(COLUMNS["im_similarity"])
        '−1 to 1'
    """
    return f"{_bound(column.low)} to {_bound(column.high)}"


def _bound(value: float) -> str:
    return f"{value:g}".replace("inf", "∞").replace("-", "−")
