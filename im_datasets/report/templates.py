"""Where the templates of report and card lie, and the two ways of filling them.

HTML is escaped by Jinja; Markdown by ``escape_markdown``, through which every value passes that is not
``Trusted``. Both refuse an undefined name.
"""

import math
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import OutputError

if TYPE_CHECKING:
    from jinja2 import Environment

_INLINE = re.compile(r"[`*_\[\]|~$]")
_BLOCK_START = re.compile(r"^(?:[#+=-]|\d{1,9}(?=[.)](?:\s|$)))")
_NOTHING, _LISTED = "–", 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]{1,80}")
_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=\S)(?=@)", re.IGNORECASE)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Trusted(str):
    """Markdown written here, not data: it is put into a card as it stands."""

    __slots__ = ()


def template_path(name: str) -> Path:
    """Find a template in an installed package or in a checkout.

    Args:
        name: A file name in ``hub_cards/``.

    Raises:
        OutputError: The installation lacks the file.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "hub_cards", here.parent / "hub_cards"):
        if (folder / name).is_file():
            return folder / name
    raise OutputError(f"template {name} is missing from {here / 'hub_cards'}; reinstall im-datasets")


def read_template(name: str) -> str:
    """The text of a template file."""
    return template_path(name).read_text(encoding="utf-8")


@cache
def html_environment() -> "Environment":
    """Jinja for HTML: every value is escaped unless it is ``Markup``."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= _FORMATS
    return environment


@cache
def markdown_environment() -> "Environment":
    """Jinja for Markdown: every value is escaped unless it is ``Trusted``."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=False,  # noqa: S701 - the finalizer escapes, for Markdown instead of HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escaped,
    )
    environment.filters |= {**_FORMATS, "block": code_block, "code": as_code, "trusted": Trusted}
    return environment


def write_text(path: str | Path, text: str) -> Path:
    """Write a file beside its place, then move it there, so that nobody ever sees half of it.

    Args:
        path: The file; its folder is made when it is missing.
        text: Its content, written as UTF-8.
    """
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Like ``write_text``, for bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def show_controls(text: str) -> str:
    r"""Make control characters visible, so that a text shows what it holds and no parser changes it.

    Args:
        text: Any text.

    Returns:
        The text with control characters other than tab and newline as their pictures, and with U+FFFD for
        what has none and for lone surrogates.

    >>> show_controls("a\x00b\r\n\r")
    'a␀b\n␍'
    """
    if not _CONTROLS.search(text):
        return text
    return "".join(map(_picture, text.replace("\r\n", "\n")))


def one_line(text: object, limit: int = 200) -> str:
    r"""A value as one visible line of bounded length.

    Args:
        text: Any value.
        limit: Characters kept.

    >>> one_line("a\n\n# b\u202e")
    'a # b�'
    """
    words = " ".join(str(text).split())
    line = "".join("\ufffd" if char in _BIDI else char for char in show_controls(words))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def escape_markdown(text: object, limit: int = 2000) -> Trusted:
    r"""Any value as one line of Markdown that renders as that text: no HTML, link, image, heading or cell.

    Args:
        text: Any value.
        limit: Characters kept.

    >>> escape_markdown("[a](b) | <i>")
    '\\[a\\](b) \\| &lt;i&gt;'
    """
    line = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # As an entity: an escaped backslash before a bracket opens a formula on the Hub.
    line = line.replace("\\", "&#92;")
    # A backslash does not keep GitHub's Markdown from linking a bare address; a comment inside it does.
    line = _AUTOLINK.sub("<!-- -->", _INLINE.sub(r"\\\g<0>", line))
    start = _BLOCK_START.match(line)
    if start is None:
        return Trusted(line)
    digits = start[0] if start[0].isdigit() else ""
    return Trusted(digits + "\\" + line[len(digits) :])


def code_block(text: str, language: str = "") -> Trusted:
    """A fenced code block that no content can close.

    Args:
        text: The content.
        language: What the fence says it is.
    """
    shown = show_controls(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return Trusted(f"{fence}{language}\n{shown}\n{fence}")


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
    text = f"{value:,.{decimals}f}" if decimals <= 7 else f"{value:.{digits - 1}e}"
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


def told_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts that say something, as texts.

    Args:
        facts: Plain data.

    >>> told_facts({"k": 6, "revision": None, "embedder": {"id": "a", "device": None}, "files": []})
    [('k', '6'), ('embedder', '(id = a)')]
    """
    texts = [(name, _nested(value)) for name, value in facts.items()]
    return [(name, text) for name, text in texts if text != _NOTHING]


def format_fact(value: Any) -> str:
    """Plain data as one text; a dash where it says nothing.

    >>> format_fact({"low": 0.5, "sets": ["a", "b"]})
    'low = 0.5; sets = a, b'
    """
    if value is None or value in ("", (), [], {}) or (isinstance(value, float) and not math.isfinite(value)):
        return _NOTHING
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {text}" for name, text in told_facts(value)) or _NOTHING
    if isinstance(value, list | tuple):
        more = len(value) - _LISTED
        return ", ".join(map(format_fact, value[:_LISTED])) + (f" and {more:,} more" if more > 0 else "")
    return format_exactly(value) if isinstance(value, float) else str(value)


def as_code(text: str) -> Trusted:
    r"""A name as code where it is a plain one, else escaped.

    >>> as_code("im_mtld"), as_code("a`b")
    ('`im_mtld`', 'a\\`b')
    """
    return Trusted(f"`{text}`") if _PLAIN_NAME.fullmatch(text) else escape_markdown(text)


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


def _nested(value: Any) -> str:
    text = format_fact(value)
    return f"({text})" if isinstance(value, Mapping) and text != _NOTHING else text


def _picture(char: str) -> str:
    if char in "\t\n" or not _CONTROLS.match(char):
        return char
    if ord(char) < 0x20:
        return chr(0x2400 + ord(char))
    return "\u2421" if char == "\x7f" else "\ufffd"


_FORMATS = {
    "fact": format_fact,
    "number": format_number,
    "exactly": format_exactly,
    "count": format_count,
    "share": format_share,
}
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def _shown(value: Any) -> Any:
    return show_controls(value) if type(value) is str else value


def _escaped(value: Any) -> Trusted:
    return value if isinstance(value, Trusted) else escape_markdown(value)
