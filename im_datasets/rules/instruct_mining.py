"""InstructMining as one batch function: the indicators a rule needs, then the rule.

Leaves datasets, progress and records to ``scoring``.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from datasets import Dataset

from im_datasets.common.errors import RuleError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Batch, Indicator
from im_datasets.indicators.model import compute_together
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.indicators.settings import find_indicator, from_settings, other_weights, without_weights
from im_datasets.models.devices import on_rank
from im_datasets.models.inference import sharing_values
from im_datasets.rules.linear import LOG_LOSS, LinearRule


class InstructMining:
    """Score rows by a rule: its indicators' columns, ``im_log_loss`` and ``im_unscorable``.

    Args:
        rule: A shipped rule's name, the path of a rule's JSON, or a LinearRule.
        indicators: Indicators with settings of your own, taken instead of the rule's default ones; one that
            the rule does not need is computed beside it.
        columns: Where instruction and response stand; None finds them by the names of the columns.

    Raises:
        RuleError: The rule is unknown, or needs a column that no indicator here writes.

    Example:
        >>> score_fn = InstructMining("embedded")
        >>> score_fn.writes
        ('im_quality', 'im_log_loss', 'im_unscorable')
    """

    def __init__(
        self,
        rule: LinearRule | str | Path = "embedded",
        *,
        indicators: Sequence[Indicator] = (),
        columns: Columns | None = None,
    ) -> None:
        self.rule = rule if isinstance(rule, LinearRule) else LinearRule.load(rule)
        self.columns = columns
        self.indicators = tuple(_complete(self.rule, indicators))

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the columns a call returns."""
        return (*(name for i in self.indicators for name in i.writes), LOG_LOSS, UNSCORABLE)

    def fit(self, dataset: Dataset) -> Self:
        """A copy whose whole-dataset indicators have seen the dataset.

        Raises:
            ColumnsError: Instruction and response cannot be told from the column names.
        """
        fitted = type(self)(self.rule, indicators=self.indicators, columns=self.columns)
        fitted.indicators = tuple(_fit(indicator, dataset, self.columns) for indicator in self.indicators)
        return fitted

    def __call__(self, batch: Batch, rank: int | None = None) -> dict[str, list[Any]]:
        """Score a batch as ``Dataset.map(batched=True)`` hands it over.

        Args:
            batch: Columns of equal length.
            rank: The process's number, as ``with_rank=True`` gives it, so that each takes a GPU of its own; None
                in a single process.

        Returns:
            For every name in ``writes``, one value per row in row order: floats, NaN where the row could not be
            scored; ``im_unscorable`` is the reason as text, empty where there is none.

        Raises:
            ColumnsError: Instruction and response cannot be told from the column names.
            NotFittedError: An indicator of the rule has to see the whole dataset first; call ``fit``.
        """
        columns = self.columns or Columns.detect(list(batch))
        with on_rank(rank):
            return self.score_pairs(columns.pairs(batch))

    def score_pairs(self, pairs: Pairs) -> dict[str, list[Any]]:
        """Score the pairs that can be scored; the others are NaN with their reason."""
        scores: dict[str, list[float]] = {}
        with sharing_values():
            for indicator in self.indicators:
                compute_together(indicator, self.indicators, pairs)
                scores |= indicator.score_pairs(pairs)
        return {**scores, **finish(self.rule, scores, pairs.reasons)}

    def __repr__(self) -> str:
        return f"InstructMining({self.rule.name!r}, indicators={list(self.indicators)})"


def finish(rule: LinearRule, scores: dict[str, list[float]], reasons: Sequence[str]) -> dict[str, list[Any]]:
    """The rule's prediction and every row's reason for having none.

    Args:
        rule: The rule.
        scores: Column → n floats, all of the rule's columns among them.
        reasons: Why each pair could not be scored at all; empty where it could, shape (n,).

    Returns:
        ``im_log_loss`` and ``im_unscorable``, n values each. A row that one of the rule's indicators could not
        score names that indicator's column.
    """
    unscored = {column: [value != value for value in scores[column]] for column in rule.columns}
    causes = [
        reason or next((f"no {column}" for column in rule.columns if unscored[column][row]), "")
        for row, reason in enumerate(reasons)
    ]
    log_loss = rule.predict(scores).tolist() if reasons else []
    return {LOG_LOSS: log_loss, UNSCORABLE: causes}


def _complete(rule: LinearRule, own: Sequence[Indicator]) -> list[Indicator]:
    """The user's own indicators, and the rule's default ones for the columns that they do not write."""
    chosen = list(own)
    for column in rule.columns:
        if not any(column in indicator.writes for indicator in chosen):
            chosen.append(_default(rule, column))
    written = [name for indicator in chosen for name in indicator.writes]
    if repeated := sorted({name for name in written if written.count(name) > 1}):
        raise RuleError(f"two indicators write {', '.join(repeated)}; give one of them")
    return chosen


def _default(rule: LinearRule, column: str) -> Indicator:
    """The indicator that writes a column, with the settings the rule assumes."""
    names = [COLUMNS[column].indicator] if column in COLUMNS else list(rule.indicators)
    for name in names:
        # A rule is data that anybody may have written; only the user may let code run.
        if rule.indicators.get(name, {}).get("trust_remote_code"):
            raise RuleError(f"rule {rule.name!r} asks to run code of a repository; pass the indicator {name} yourself")
        settings = {**_implied(rule, column, name), **settings_of(rule, name)}
        if (cls := find_indicator(name)) is not None and column in (indicator := cls(**settings)).writes:
            return indicator
    raise RuleError(
        f"rule {rule.name!r} needs {column}, and no indicator here computes it: pass one that writes it in "
        f"indicators=[…], or, where the dataset has the column already, apply the rule alone: "
        f"ds.map(LinearRule.load({rule.name!r}), batched=True)"
    )


def settings_of(rule: LinearRule, name: str, **own: Any) -> dict[str, Any]:
    """The settings that a rule assumes of an indicator, as its class takes them.

    Beside the folder of a local model a rule states its ``weights``, the digest that the folder must have.

    Args:
        rule: The rule.
        name: The indicator's class.
        own: Settings that are taken instead; with a ``model`` of one's own the rule's is not looked at.

    Raises:
        RuleError: The model's folder is not here, or holds other weights than those the rule was fitted with.
    """
    assumed = rule.indicators.get(name, {})
    if "model" not in own and (trouble := other_weights(assumed)):
        raise RuleError(
            f"rule {rule.name!r} was fitted with {name} by {trouble}; pass indicators=[{name}(…)] with the place of "
            f"that model here, or name it by the command's option"
        )
    return {**from_settings(without_weights(assumed)), **own}


def _implied(rule: LinearRule, column: str, name: str) -> dict[str, Any]:
    """Settings that the rule's columns say by their names."""
    if name == "KNNDistance":
        return {"k": int(column.rpartition("_")[2])}
    if name == "UniEval" and column in COLUMNS:
        answers = [each for each in rule.columns if each in COLUMNS and COLUMNS[each].indicator == name]
        return {"dimensions": tuple(answer.removeprefix("im_") for answer in answers)}
    return {}


def _fit(indicator: Indicator, dataset: Dataset, columns: Columns | None) -> Indicator:
    if not hasattr(indicator, "fit"):
        return indicator
    if columns is not None and indicator.columns is None:
        indicator = replace(indicator, columns=columns)
    fitted: Indicator = indicator.fit(dataset)
    return fitted
