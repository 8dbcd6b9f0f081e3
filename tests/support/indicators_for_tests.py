"""Indicators that do something to the process that runs them, and a rule that reads them."""

import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset

from im_datasets import LinearRule
from im_datasets.indicators import Indicator
from im_datasets.rules.linear import Term

RULE = LinearRule("length", "by letters", 0.0, (Term("letters", 0.01),))


@dataclass(frozen=True, kw_only=True)
class Letters(Indicator):
    """Letters of the response; perhaps slowly, and noted in a file shard by shard."""

    version: ClassVar[str] = "1"
    writes = ("letters",)

    seconds: float = 0.0
    notes: str | None = None

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Any:
        time.sleep(self.seconds)
        if self.notes:
            with Path(self.notes).open("a") as file:
                file.write(f"{os.getpid()} {len(responses)}\n")
        return {"letters": [len(text) for text in responses]}


@dataclass(frozen=True, kw_only=True)
class Mortal(Letters):
    """Kills its process over a text that says so: for good, or the first time only where there is a flag file.

    Not before another file is there, where one is named (or it has been waited for in vain for a minute).
    """

    flag: str | None = None
    after: str | None = None

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Any:
        if any("poison" in text for text in responses) and not (self.flag and Path(self.flag).exists()):
            waited = time.monotonic()
            while self.after and not Path(self.after).exists() and time.monotonic() - waited < 60:
                time.sleep(0.05)
            if self.flag:
                Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(instructions, responses)


@dataclass(frozen=True, kw_only=True)
class Cramped(Letters):
    """Lets its process write no more than some bytes to any file."""

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return super().score(instructions, responses)


class Panic(BaseException):
    """As a tokenizer written in Rust panics: no Exception."""


@dataclass(frozen=True, kw_only=True)
class Brittle(Letters):
    """Raises over a text that says so."""

    error: type[BaseException] = Panic

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Any:
        if any("poison" in text for text in responses):
            raise self.error("no way to cut this text")
        return super().score(instructions, responses)


def rows(count: int, poison: int | None = None) -> Dataset:
    """Rows of which each has another number of letters; one may be poison, and each tenth has no response."""
    responses: list[str | None] = ["x" * (row % 97 + 1) for row in range(count)]
    responses[::10] = [None] * len(responses[::10])
    if poison is not None:
        responses[poison] = "poison"
    return Dataset.from_dict({"instruction": [f"Count to {row}." for row in range(count)], "output": responses})
