"""What the work in a model came to: tokens read, texts cut, values computed or found in the store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Listener = Callable[[int, int], object]
"""Told how much of the work at hand is done, and how much there is."""


@dataclass
class Meter:
    """What the work inside a ``metering`` block comes to.

    Attributes:
        listener: Called with (done, total), in any unit, as the work at hand goes on; None tells nobody.
        tokens: Real tokens that went through a model.
        truncated: Rows of which an input was cut to the model's length.
        reused: Model inputs whose values were in the store already.
        computed: Model inputs that went through a model.
    """

    listener: Listener | None = None
    tokens: int = 0
    truncated: int = 0
    reused: int = 0
    computed: int = 0


_METER: ContextVar[Meter | None] = ContextVar("im_datasets_meter", default=None)


@contextmanager
def metering(listener: Listener | None = None) -> Iterator[Meter]:
    """Count the work inside the block, and have ``listener(done, total)`` called as long work goes on.

    The innermost block counts.

    Example:
        >>> seen = []
        >>> with metering(lambda done, total: seen.append((done, total))) as meter:
        ...     report(2, 3)
        ...     count(tokens=5)
        >>> seen, meter.tokens
        ([(2, 3)], 5)
    """
    meter = Meter(listener)
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def report(done: int, total: int) -> None:
    """Tell the listener, if there is one, that ``done`` of ``total`` is done."""
    meter = _METER.get()
    if meter is not None and meter.listener is not None:
        meter.listener(done, total)


def count(*, tokens: int = 0, truncated: int = 0, reused: int = 0, computed: int = 0) -> None:
    """Add to the meter, if there is one."""
    meter = _METER.get()
    if meter is not None:
        meter.tokens += tokens
        meter.truncated += truncated
        meter.reused += reused
        meter.computed += computed
