"""Where the templates of report and card lie, and the two ways of filling them.

HTML is escaped by Jinja; Markdown by ``escape_markdown``, through which every value passes that is not
``Trusted``. Both refuse an undefined name.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import OutputError
from im_datasets.common.untrusted import show_controls, shown
from im_datasets.report.formatting import (
    Trusted,
    format_bounds,
    format_count,
    format_exactly,
    format_fact,
    format_number,
    format_share,
)

if TYPE_CHECKING:
    from jinja2 import Environment

_INLINE = re.compile(r"[`*_\[\]|~$]")
_BLOCK_START = re.compile(r"^(?:[#+=-]|\d{1,9}(?=[.)](?:\s|$)))")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]{1,80}")
_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=\S)(?=@)", re.IGNORECASE)


def template_path(name: str) -> Path:
    """Find a template in an installed package or in a checkout.

    Args:
        name: A file name in ``hub_cards/``.

    Raises:
        OutputError: The installation lacks the file.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "hub_cards", package.parent / "hub_cards"):
        if (folder / name).is_file():
            return folder / name
    raise OutputError(f"template {name} is missing from {package / 'hub_cards'}; reinstall im-datasets")


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


def escape_markdown(text: object, limit: int = 2000) -> Trusted:
    r"""Any value as one line of Markdown that renders as that text: no HTML, link, image, heading or cell.

    Args:
        text: Any value.
        limit: Characters kept.

    >>> escape_markdown("[a](b) | <i>")
    '\\[a\\](b) \\| &lt;i&gt;'
    """
    line = shown(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
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
    visible = show_controls(text)
    longest = max((len(run) for run in re.findall("`+", visible)), default=0)
    fence = "`" * max(3, longest + 1)
    return Trusted(f"{fence}{language}\n{visible}\n{fence}")


def as_code(text: str) -> Trusted:
    r"""A name as code where it is a plain one, else escaped.

    >>> as_code("im_mtld"), as_code("a`b")
    ('`im_mtld`', 'a\\`b')
    """
    return Trusted(f"`{text}`") if _PLAIN_NAME.fullmatch(text) else escape_markdown(text)


_FORMATS = {
    "bounds": format_bounds,
    "fact": format_fact,
    "number": format_number,
    "exactly": format_exactly,
    "count": format_count,
    "share": format_share,
}


def _shown(value: Any) -> Any:
    return show_controls(value) if type(value) is str else value


def _escaped(value: Any) -> Trusted:
    return value if isinstance(value, Trusted) else escape_markdown(value)
