"""Failures on demand: which request, how often, and what happens instead of the answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What befalls the next requests of a kind.

    Attributes:
        method: Of the requests it befalls.
        path: Regular expression that is searched in their path.
        status: Answered instead; None answers as usual.
        headers: Sent with that answer.
        message: Its ``X-Error-Message``.
        drop: Close the connection without an answer.
        done: Do what was asked before failing: only the answer is lost.
        delay: Seconds to wait first.
        before: Called first, as somebody else's doing.
        times: How many requests it befalls; each that it does counts it down.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "injected"
    drop: bool = False
    done: bool = False
    delay: float = 0.0
    before: Callable[[], object] | None = None
    times: int = 1

    def befalls(self, method: str, path: str) -> bool:
        """Whether a request meets it; counts it down."""
        if self.times < 1 or method != self.method or not re.search(self.path, path):
            return False
        self.times -= 1
        return True
