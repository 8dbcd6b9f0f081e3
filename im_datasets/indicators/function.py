"""A batch function of one's own as an indicator, so that a rule can read what it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.base import Indicator


@dataclass(frozen=True, kw_only=True)
class FunctionIndicator(Indicator):
    """Columns that a function of yours computes.

    Attributes:
        columns: Where instruction and response stand; None finds them by the names of the columns.
        function: From ``{"instruction": [...], "response": [...]}``, texts of rows that can be scored, to a column
            of as many numbers for each of ``names``; NaN where it cannot tell. With ``Dataset.map(num_proc=2)`` it
            must be picklable, as any function given to ``map``.
        names: The columns it writes.

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
    def writes(self) -> tuple[str, ...]:
        """The columns that were named."""
        return self.names

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        """What the function gives, checked.

        Raises:
            IndicatorError: A named column is missing, or has another number of values than there are rows.
        """
        given = self.function({"instruction": list(instructions), "response": list(responses)})
        return {name: self._checked(name, given, len(responses)) for name in self.names}

    def settings(self) -> dict[str, Any]:
        """The function's name and the columns it writes."""
        place = f"{self.function.__module__}.{getattr(self.function, '__qualname__', type(self.function).__name__)}"
        return {"function": place, "names": list(self.names)}

    def _checked(self, name: str, given: Mapping[str, ArrayLike], rows: int) -> ArrayLike:
        if name not in given:
            raise IndicatorError(f"the function gave the columns {sorted(given)} and not {name!r}; return it as well")
        values = np.asarray(given[name], dtype=np.float64)
        if values.shape != (rows,):
            raise IndicatorError(f"the function gave {name!r} of shape {values.shape} for {rows} rows; give one each")
        return values
