"""Values → the text that a person reads, on pages, cards and terminals alike."""

import math
from collections.abc import Mapping
from typing import Any

from im_datasets.common.untrusted import shown


class Trusted(str):
    """Markdown written here, not data: it is put into a card as it stands."""

    __slots__ = ()


def source_name(source: Mapping[str, Any]) -> str:
    """What a source is called, as a record tells it, in one line."""
    return shown(source.get("id") or "a dataset without a name")


def format_number(value: float | None, digits: int = 4) -> Trusted:
    """A number for people: significant digits, thousands separators, a real minus; a dash for none or NaN.

    >>> format_number(-1234.5678), format_number(float("nan"))
    ('−1,235', '–')
    """
    if value is None or not math.isfinite(value):
        return Trusted("–")
    if value == 0:
        return Trusted("0")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}" if decimals <= 7 and abs(value) < 1e15 else f"{value:.{digits - 1}e}"
    if "." in text and "e" not in text and float(value).is_integer():
        text = text.rstrip("0").rstrip(".")
    return Trusted(text.replace("-", "−"))


def format_exactly(value: float) -> Trusted:
    """A number as it was set, every digit of it.

    >>> format_exactly(-0.0078), format_exactly(8.257e-05), format_exactly(1.0)
    ('−0.0078', '8.257e−05', '1')
    """
    return Trusted(f"{value:.15g}".replace("-", "−"))


def format_bounds(low: float | None, high: float | None) -> str:
    """Between what a value is counted.

    >>> format_bounds(None, None), format_bounds(None, 100.0)
    ('any value', 'no limit and 100')
    """
    if low is None and high is None:
        return "any value"
    return " and ".join("no limit" if bound is None else format_exactly(bound) for bound in (low, high))


def fact_texts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts that say something, as texts.

    Args:
        facts: Plain data.

    >>> fact_texts({"k": 6, "revision": None, "embedder": {"id": "a", "device": None}, "files": []})
    [('k', '6'), ('embedder', '(id = a)')]
    """
    texts = [(name, format_fact(value), isinstance(value, Mapping)) for name, value in facts.items()]
    return [(name, f"({text})" if is_nested else text) for name, text, is_nested in texts if text != _NOTHING]


def format_fact(value: Any) -> str:
    """Plain data as one text; a dash where it says nothing.

    >>> format_fact({"low": 0.5, "sets": ["a", "b"]})
    'low = 0.5; sets = a, b'
    """
    if value is None or value in ("", (), [], {}) or (isinstance(value, float) and not math.isfinite(value)):
        return _NOTHING
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {text}" for name, text in fact_texts(value)) or _NOTHING
    if isinstance(value, list | tuple):
        more = len(value) - _LISTED
        return ", ".join(map(format_fact, value[:_LISTED])) + (f" and {more:,} more" if more > 0 else "")
    return format_exactly(value) if isinstance(value, float) else str(value)


def format_count(value: int) -> Trusted:
    """A count with thousands separators."""
    return Trusted(f"{value:,}")


def format_share(part: float, whole: float) -> Trusted:
    """A part of a whole in percent; a dash when there is no whole.

    >>> format_share(1, 3), format_share(1, 100000), format_share(0, 0)
    ('33.3 %', '< 0.1 %', '–')
    """
    if not whole:
        return Trusted("–")
    percent = 100 * part / whole
    return Trusted("< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %")


def headline(kept: int, rows: int) -> str:
    """What came of a selection, in one phrase.

    >>> headline(2000, 52002)
    'Kept 2,000 of 52,002 rows (3.8 %)'
    """
    share = f" ({format_share(kept, rows)})" if kept else ""
    return f"Kept {format_count(kept) if kept else 'none'} of {format_count(rows)} rows{share}"


def read_in_part(source: Mapping[str, Any]) -> str:
    """Which rows of a source were read, where a limit kept the others out; else an empty text.

    Args:
        source: As a record tells it: ``limit`` asked for, ``rows`` read, ``seed`` they were drawn with.

    >>> read_in_part({"limit": 300, "rows": 300, "seed": None}), read_in_part({"limit": 300, "rows": 12})
    ('the first 300 rows', '')
    """
    limit, read = source.get("limit"), source.get("rows") or 0
    if not limit or read < limit:
        return ""
    rows = f"{format_count(read)} rows"
    return f"the first {rows}" if source.get("seed") is None else f"{format_count(read)} randomly drawn rows"


def shortfall(missing: Any) -> str:
    """A sentence when fewer rows were left than asked for, so many; else, or where a record has no count, no text."""
    is_count = isinstance(missing, int) and missing > 0
    return f"{format_count(missing)} rows fewer than asked for: the checks left no more." if is_count else ""


def by_targets(targets: Any) -> str:
    """A sentence on how target examples chose the rows, from what a record tells of them; without targets no text.

    >>> by_targets({"examples": 24, "kind": "sentence", "model": {"id": "embedded"}})
    'Chosen by 24 target examples, each in turn the nearest row that none had taken; nearness by the model embedded.'
    """
    if not isinstance(targets, Mapping):
        return ""
    model = targets.get("model")
    name = shown(model.get("id")) if isinstance(model, Mapping) else "not known"
    how = " (RDS+)" if targets.get("kind") == "causal" else ""
    examples = shown(targets.get("examples"))
    turns = "each in turn the nearest row that none had taken"
    return f"Chosen by {examples} target examples, {turns}; nearness by the model {name}{how}."


_NOTHING, _LISTED = "–", 20
