"""The one table of the columns that are written, from which README, cards and metric modules are rendered."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from re import fullmatch
from typing import Literal

Direction = Literal["higher is better", "lower is better", "neither"]


@dataclass(frozen=True)
class Column:
    """One written column: its name, what writes it, its unit, its range and which way is good."""

    name: str
    indicator: str
    meaning: str
    unit: str
    low: float
    high: float
    direction: Direction


class _Columns(dict[str, Column]):
    """The table, in which ``im_knn_<k>`` stands for any k; listed is the sixth neighbour, the paper's."""

    # The table is asked for columns by their names, and there is no end of numbers that k may be.
    def __missing__(self, name: str) -> Column:
        if name not in self:
            raise KeyError(name)
        meaning = f"distance to the nearest row number {name.removeprefix('im_knn_')}"
        return replace(self["im_knn_6"], name=name, meaning=meaning)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(fullmatch(r"im_knn_[1-9]\d*", name)))


COLUMNS: dict[str, Column] = _Columns(
    (column.name, column)
    for column in (
        Column("im_input_length", "Length", "length of the instruction", "tokens", 0, inf, "neither"),
        Column("im_output_length", "Length", "length of the response", "tokens", 0, inf, "neither"),
        Column("im_mtld", "MTLD", "lexical diversity of the response", "words", 0, inf, "higher is better"),
        Column("im_similarity", "Similarity", "instruction to response", "cosine", -1, 1, "higher is better"),
        Column(
            "im_target_similarity", "TargetSimilarity", "nearest target example", "cosine", -1, 1, "higher is better"
        ),
        Column("im_quality", "Quality", "a whole, matching answer", "logit", -inf, inf, "higher is better"),
        Column("im_knn_6", "KNNDistance", "distance to the 6th nearest row", "distance", 0, inf, "neither"),
        Column("im_perplexity", "Perplexity", "surprise of the response", "perplexity", 1, inf, "neither"),
        Column("im_ifd", "IFD", "perplexity with over without the instruction", "ratio", 0, inf, "neither"),
        Column("im_rifd", "ReversedIFD", "instruction: with over without response", "ratio", 0, inf, "lower is better"),
        Column("im_reward", "Reward", "a reward model's score", "logit", -inf, inf, "higher is better"),
        Column("im_naturalness", "UniEval", "naturalness", "probability", 0, 1, "higher is better"),
        Column("im_coherence", "UniEval", "coherence", "probability", 0, 1, "higher is better"),
        Column("im_understandability", "UniEval", "understandability", "probability", 0, 1, "higher is better"),
        Column("im_engagingness", "UniEval", "engagingness", "sum of probabilities", 0, inf, "higher is better"),
        Column("im_groundedness", "UniEval", "groundedness", "probability", 0, 1, "higher is better"),
        Column("im_log_loss", "LinearRule", "the rule's prediction", "log loss", -inf, inf, "lower is better"),
    )
)


def describe_column(name: str) -> Column:
    """What is known of a column: all of ours, of another indicator's only the name.

    Example:
        >>> describe_column("im_mtld").unit, describe_column("politeness").unit
        ('words', 'value')
    """
    return (
        COLUMNS[name] if name in COLUMNS else Column(name, "", "an indicator of its own", "value", -inf, inf, "neither")
    )


UNSCORABLE = "im_unscorable"
"""The column that says why a row could not be scored: a short reason, or an empty string."""


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
