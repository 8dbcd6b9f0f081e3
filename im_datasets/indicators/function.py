"""A batch function of one's own as an indicator, so that a rule can read what it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.base import Indicator


@dataclass(frozen=True, kw_only=True)
class FunctionIndicator(Indicator):
    """Columns that a function of yours computes.

    Attributes:
        function: From ``{"instruction": [...], "response": [...]}``, texts of rows that can be scored, to a column
            of as many numbers for each of ``names``; NaN where it cannot tell. With ``Dataset.map(num_proc=2)`` it
            must be picklable, as any function given to ``map``.
        names: The columns it writes.

    Raises:
        IndicatorError: While scoring: a named column is missing, or has another number of values than there are rows.

    Example:
        >>> def questions(batch):
        ...     return {"my_questions": [text.count("?") for text in batch["response"]]}
        >>> indicator = FunctionIndicator(function=questions, names=("my_questions",))
        >>> indicator({"prompt": ["Hi."], "completion": ["Hello! How are you?"]})
        {'my_questions': [1.0]}
    """

    version: ClassVar[str] = "1"

    function: Callable[[Mapping[str, Sequence[str]]], Mapping[str, ArrayLike]]
    names: tuple[str, ...]

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return self.names

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        columns = self.function({"instruction": list(instructions), "response": list(responses)})
        if missing := [name for name in self.names if name not in columns]:
            names = f"{sorted(columns)} and not {missing[0]!r}"
            raise IndicatorError(f"the function gave the columns {names}; return it as well")
        values = {name: np.asarray(columns[name], dtype=np.float64) for name in self.names}
        for name, column in values.items():
            if column.shape != (len(responses),):
                shape = f"{name!r} of shape {column.shape} for {len(responses)} rows"
                raise IndicatorError(f"the function gave {shape}; give one each")
        return values

    @override
    def settings(self) -> dict[str, Any]:
        # A callable object has no name of its own; that of its class stands for it.
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"function": f"{self.function.__module__}.{name}", "names": list(self.names)}
