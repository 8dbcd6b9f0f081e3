"""A linear rule as data: indicator columns → ``im_log_loss``; load, save, explain.

A rule never computes an indicator. It is a batch function over columns that are already there, so a published
or fitted rule can be applied again to scores that somebody else computed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from im_datasets.common.errors import RuleError, UntrustedError, message_of
from im_datasets.common.plain_types import LARGEST, check_fields, is_number
from im_datasets.common.storage import write_text
from im_datasets.common.untrusted import MESSAGE, parse_json, read_bytes, shown
from im_datasets.indicators.score_columns import COLUMNS

RULE_SCHEMA = 1
LOG_LOSS = "im_log_loss"

_NO_NUMBER = f"not a finite number up to {LARGEST:g}"
_SHIPPED = Path(__file__).parent
# The second and the third version of the paper state the same rule.
_ALIASES = {"v2": "v3"}


@dataclass(frozen=True)
class Term:
    """One column's part in a rule: ``coefficient * clip(value, low, high)``.

    Attributes:
        column: The indicator column.
        coefficient: Change of the target per unit of the column.
        low: Values below count as this; None = no bound.
        high: Values above count as this; None = no bound.
    """

    column: str
    coefficient: float
    low: float | None = None
    high: float | None = None

    def contribution(self, values: ArrayLike) -> NDArray[np.float64]:
        """The term's part of the prediction: same shape as the values; NaN where they are NaN or beyond ``LARGEST``."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return self.coefficient * countable(np.clip(np.asarray(values, dtype=np.float64), low, high))


@dataclass(frozen=True)
class LinearRule:
    """``intercept + Σ coefficient · clip(column)``: a predicted log loss, lower is better.

    Attributes:
        name: Short name, as ``--rule`` takes it.
        title: One line for people.
        intercept: The constant, in units of the target.
        terms: The terms, in the order they are shown.
        target: What the prediction stands for, with its unit.
        aggregation: How the coefficients were fitted against how they are applied.
        indicators: Indicator class → settings the rule assumes.
        provenance: Where the coefficients come from: source or fit, base model, data, R².
        caveats: What a reader must know before trusting it.
        schema_version: Version of this layout.

    Example:
        >>> rule = LinearRule("mine", "by length", 1.0, (Term("im_output_length", -0.01, high=100),))
        >>> rule.predict({"im_output_length": [50, 1000]}).tolist()
        [0.5, 0.0]
    """

    name: str
    title: str
    intercept: float
    terms: tuple[Term, ...]
    target: str = "log of the mean inference loss, nats per response token"
    aggregation: str = "fitted on dataset means, applied to each row"
    indicators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    schema_version: int = RULE_SCHEMA

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be told or computed."""
        self._check_texts()
        columns = [term.column for term in self.terms]
        if not all(isinstance(column, str) for column in columns):
            raise RuleError(f"rule {self.name!r} names its columns {columns}; each must be a text")
        if not columns or len(set(columns)) < len(columns):
            raise RuleError(f"rule {self.name!r} needs at least one term and each column once; got {columns}")
        numbers = [self.intercept, *(t.coefficient for t in self.terms)]
        if not all(map(is_number, numbers)):
            raise RuleError(f"rule {self.name!r} has a coefficient that is {_NO_NUMBER}: {numbers}")
        for term in self.terms:
            bounds = [bound for bound in (term.low, term.high) if bound is not None]
            if not all(map(is_number, bounds)):
                raise RuleError(f"rule {self.name!r} clips {term.column} at what is {_NO_NUMBER}: {bounds}")
            if term.low is not None and term.high is not None and term.low > term.high:
                raise RuleError(f"rule {self.name!r} clips {term.column} to an empty range")

    def _check_texts(self) -> None:
        for part in ("name", "title", "target", "aggregation"):
            if not isinstance(getattr(self, part), str):
                raise RuleError(f"the {part} of a rule is {getattr(self, part)!r}; it must be a text")
        if not all(isinstance(caveat, str) for caveat in self.caveats):
            raise RuleError(f"rule {self.name!r} has a caveat that is no text: {list(self.caveats)}")
        settings = self.indicators.values() if isinstance(self.indicators, Mapping) else [self.indicators]
        if not all(isinstance(each, Mapping) for each in [self.provenance, *settings]):
            raise RuleError(f"rule {self.name!r} needs an object as its provenance and for each of its indicators")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(term.column for term in self.terms)

    def predict(self, values: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """The predicted log loss of each row.

        Args:
            values: Column → n floats.

        Returns:
            Shape (n,), float64; NaN where any of the rule's columns is NaN.

        Raises:
            RuleError: A column is missing.
        """
        missing = [column for column in self.columns if column not in values]
        if missing:
            writers = {c: f"run the indicator {COLUMNS[c].indicator}" for c in missing if c in COLUMNS}
            needed = ", ".join(f"{c} ({writers.get(c, 'a column of your own')})" for c in missing)
            raise RuleError(f"rule {self.name!r} needs {needed}; found {sorted(values) or 'no columns'}")
        parts = [term.contribution(values[term.column]) for term in self.terms]
        return np.atleast_1d(sum(parts, np.float64(self.intercept)))

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
        """Add ``im_log_loss`` to a batch that has the rule's columns.

        Raises:
            RuleError: A column is missing.
        """
        present = {c: [math.nan if v is None else v for v in batch[c]] for c in self.columns if c in batch}
        return {LOG_LOSS: self.predict(present).tolist()}

    def explain(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Each term's contribution to one row's prediction.

        Args:
            row: Column → value.

        Returns:
            ``intercept``, every column's contribution, and ``im_log_loss``, their sum.

        Raises:
            RuleError: A column is missing.
        """
        total = self.predict({c: [row[c]] for c in self.columns if c in row})
        parts = {term.column: float(term.contribution(row[term.column])) for term in self.terms}
        return {"intercept": self.intercept, **parts, LOG_LOSS: float(total[0])}

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data."""
        # Through JSON: tuples become lists, as they do in a file.
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def save(self, path: str | Path) -> None:
        """Write the rule as JSON, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A rule from plain data.

        Raises:
            RuleError: A field is missing, unknown or of the wrong kind, or the schema version is not known.
        """
        try:
            if data["schema_version"] != RULE_SCHEMA:
                raise RuleError(f"rule has schema version {data['schema_version']!r}; known: {RULE_SCHEMA}")
            check_fields({name: data.get(name) for name in ("provenance", "indicators")}, object, "the rule")
            terms = tuple(Term(**term) for term in data["terms"])
            caveats = data.get("caveats", [])
            if not isinstance(caveats, list | tuple):
                raise RuleError(f"the caveats of a rule are {caveats!r}; they must be a list of texts")
            return cls(**{**data, "terms": terms, "caveats": tuple(caveats)})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RuleError(f"not a rule: {shown(message_of(error), MESSAGE)}") from error

    @classmethod
    def load(cls, rule: str | Path) -> Self:
        """A shipped rule by name, or a rule from a JSON file.

        Raises:
            RuleError: No such name or file, or not a rule.

        Example:
            >>> LinearRule.load("v1").columns
            ('im_reward', 'im_output_length', 'im_knn_6')
        """
        name = _ALIASES.get(str(rule), str(rule))
        path = _SHIPPED / f"{name}.json" if name in cls.names() else Path(rule)
        try:
            return cls.from_dict(parse_json(read_bytes(path, str(rule)), str(rule)))
        except OSError as error:
            shipped = ", ".join(cls.names())
            raise RuleError(f"no rule {str(rule)!r}; pass one of {shipped}, or the path of a rule's JSON") from error
        except UntrustedError as error:
            raise RuleError(str(error)) from error

    @staticmethod
    def names() -> list[str]:
        """Names of the shipped rules."""
        return sorted(path.stem for path in _SHIPPED.glob("*.json"))


def countable(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, NaN in place of those beyond ``LARGEST``."""
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


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
        return LinearRule.from_dict(parse_json(str(rule), "the rule"))
    except UntrustedError as error:
        raise RuleError(str(error)) from error
