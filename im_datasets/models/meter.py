"""What some work came to: seconds, tokens read, texts cut, values computed or found in the store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass

Listener = Callable[[int, int], object]
"""Told how much of the work at hand is done, and how much there is."""


@dataclass
class Meter:
    """What some work came to: that inside a ``metering`` block, or one part of a shard's.

    Attributes:
        seconds: Wall seconds in the process that did it, where somebody takes the time.
        tokens: Real tokens that went through a model.
        truncated: Rows (or texts) of which an input was cut to the model's length.
        reused: Model inputs whose values were in the store already.
        computed: Model inputs that went through a model.
    """

    seconds: float = 0.0
    tokens: int = 0
    truncated: int = 0
    reused: int = 0
    computed: int = 0

    def add(self, other: "Meter") -> None:
        """Add the figures of other work."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


_METERING: ContextVar[tuple[Meter, Listener | None] | None] = ContextVar("im_datasets_metering", default=None)


@contextmanager
def metering(listener: Listener | None = None) -> Iterator[Meter]:
    """Count the work inside the block, and have ``listener(done, total)`` called as long work goes on.

    The innermost block counts.

    Example:
        >>> steps = []
        >>> with metering(lambda done, total: steps.append((done, total))) as meter:
        ...     report(2, 3)
        ...     count(tokens=5)
        >>> steps, meter.tokens
        ([(2, 3)], 5)
    """
    meter = Meter()
    token = _METERING.set((meter, listener))
    try:
        yield meter
    finally:
        _METERING.reset(token)


def report(done: int, total: int) -> None:
    """Tell the listener, if there is one, that ``done`` of ``total``, in any unit, is done."""
    _, listener = _METERING.get() or (None, None)
    if listener is not None:
        listener(done, total)


def count(*, tokens: int = 0, truncated: int = 0, reused: int = 0, computed: int = 0) -> None:
    """Add to the meter, if there is one."""
    meter, _ = _METERING.get() or (None, None)
    if meter is not None:
        meter.add(Meter(0.0, tokens, truncated, reused, computed))
