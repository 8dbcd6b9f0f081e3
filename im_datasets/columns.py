"""Any raw layout → instruction and response."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from im_datasets.errors import ColumnsError


@dataclass(frozen=True)
class Pairs:
    """Instruction-response pairs of a batch, one per row; a reason where there is none to score."""

    instructions: list[str]
    responses: list[str]
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.reasons)


@dataclass(frozen=True)
class Columns:
    """Where instruction and response stand."""

    instruction: str | None = None
    response: str | None = None
    input: str | None = None

    @classmethod
    def detect(cls, names: Iterable[str]) -> Self:
        names = list(names)
        if "instruction" in names and "output" in names:
            return cls("instruction", "output", "input" if "input" in names else None)
        raise ColumnsError(f"no instruction and response in {names}")

    def pairs(self, batch: Mapping[str, Sequence[Any]]) -> Pairs:
        xs, ys = list(batch[self.instruction]), list(batch[self.response])
        if self.input:
            xs = [f"{x}\n\n{i}" if i else x for x, i in zip(xs, batch[self.input])]
        ok = [isinstance(x, str) and isinstance(y, str) and bool(x.strip()) and bool(y.strip()) for x, y in zip(xs, ys)]
        return Pairs(
            [x if k else "" for x, k in zip(xs, ok)],
            [y if k else "" for y, k in zip(ys, ok)],
            ["" if k else "empty response" for k in ok],
        )
