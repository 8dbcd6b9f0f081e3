"""What comes from a stranger: JSON and YAML within bounds, and any text as one line that shows what it holds."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from im_datasets.common.errors import UntrustedError, message_of

TEXT_BYTES = 4 * 2**20
"""The largest manifest, record, rule or card that is read: real ones have some ten kB, and this takes a second."""

DEPTH = 64
"""The deepest nesting that is read: real ones have ten levels, and code that walks plain data calls itself by level."""

YAML_NODES = 100_000
"""The most values that YAML may stand for, aliases written out: cards with a thousand configs have half of that."""

LINE = 200
"""Characters of a name or value that are shown."""

MESSAGE = 2000
"""Characters of a message that may quote several of them."""


def read_bytes(path: str | Path, what: str, most: int = TEXT_BYTES) -> bytes:
    """The content of a file that ought to be small.

    Args:
        path: Where it lies.
        what: What it is, for the error.
        most: The largest content that is read, in bytes.

    Raises:
        UntrustedError: It is larger.
        OSError: It cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UntrustedError(f"{what} has more than {most:,} bytes; no file of its kind needs them, so it is not read")
    return content


def read_text(content: bytes, what: str) -> str:
    """Bytes as text.

    Raises:
        UntrustedError: They are no UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UntrustedError(f"{what} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def leads_outside(path: str) -> bool:
    """Whether a path, compared as text, may lead out of the folder or repository that names it, on any system.

    Absolute paths, ``..``, drives, the schemes of URLs and their chains, homes, backslashes and control characters.

    >>> leads_outside("data/a.parquet"), leads_outside("zip://a::http://b"), leads_outside("a/../../b")
    (False, True, True)
    """
    is_plain = path.isprintable() and not path.startswith(("/", "~")) and not set(path) & {"\\", ":"}
    return not is_plain or ".." in path.split("/")


def file_in(folder: Path, path: str) -> Path | None:
    """A file of a folder that somebody else filled; None where there is none.

    Args:
        folder: It, or a snapshot in the Hub's cache, whose files are links to the blobs beside it.
        path: Relative to it.

    Raises:
        UntrustedError: It leads out of the folder, as text or by a link.
    """
    place = folder.resolve() / path
    if leads_outside(path) or not lies_in(folder, place.resolve()):
        raise UntrustedError(f"{shown(path)} leads out of {folder.name}; a copy holds its own files: cp -rL")
    return place if place.is_file() else None


def lies_in(folder: Path, place: Path) -> bool:
    """Whether a file or folder, behind all links, is of a folder, or of the repository in the Hub's cache around it.

    Args:
        folder: Any.
        place: Without links in it.
    """
    root = folder.resolve()
    # A repository's files are links from its `snapshots/<commit>/` to its `blobs/` beside.
    blobs = [each.parent.parent / "blobs" for each in (root, *root.parents) if each.parent.name == "snapshots"]
    return any(place.is_relative_to(home) for home in (root, *blobs))


def parse_json(content: str | bytes, what: str, *, unique: bool = False) -> Any:
    """JSON → plain data of bounded size and depth.

    Args:
        content: Its text, or that in UTF-8.
        what: What it is, for the error.
        unique: Whether no name may come twice in one object, of which some readers take the first, some the last.

    Raises:
        UntrustedError: It is not JSON, not UTF-8, longer than ``TEXT_BYTES``, deeper than ``DEPTH`` or not ``unique``.

    >>> parse_json(b'{"a": [1]}', "the file")
    {'a': [1]}
    """
    text = _bounded(content, what)
    try:
        data = json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:
        raise UntrustedError(f"{what} is not JSON: {shown(message_of(error))}") from error
    level: Iterable[Any] = [data]
    for _ in range(DEPTH + 1):
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return data
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    raise _too_deep(what)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names each come once."""
    data = dict(pairs)
    if len(data) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {twice!r} comes twice in one object")
    return data


def parse_yaml(content: str | bytes, what: str) -> Any:
    """YAML → plain data of bounded size and depth, aliases written out; no tag makes anything else of it.

    Args:
        content: Its text, or that in UTF-8.
        what: What it is, for the error.

    Raises:
        UntrustedError: It is not YAML, not UTF-8, longer than ``TEXT_BYTES``, deeper than ``DEPTH``, or stands for more
            than ``YAML_NODES`` values.

    >>> parse_yaml("a: [1]", "the file")
    {'a': [1]}
    """
    text = _bounded(content, what)
    try:
        _check_events(text, what)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    # A date or a number that is none comes as a ValueError.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, UntrustedError):
            raise
        raise UntrustedError(f"{what} is not YAML: {shown(message_of(error))}") from error


def check_unique(content: str | bytes, what: str) -> None:
    r"""Refuse YAML in which a name comes twice in one mapping: some readers take the first, some the last.

    Args:
        content: Read by ``parse_yaml`` before.
        what: What it is, for the error.

    Raises:
        UntrustedError: Names the first one.

    >>> check_unique("a: 1\nb: {a: 1}", "the file")
    """
    seen, left = set(), [yaml.compose(_bounded(content, what), Loader=_Loader)]
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for name, value in node.value:
                if isinstance(name, yaml.ScalarNode) and name.value in names:
                    raise UntrustedError(
                        f"{what} has {shown(name.value)!r} twice, of which readers take one or the other"
                    )
                names |= {name.value} if isinstance(name, yaml.ScalarNode) else set()
                left.append(value)
        else:
            left += node.value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, with whole numbers in the notations that take time in proportion to their length."""


def _whole_number(loader: Any, node: yaml.ScalarNode) -> Any:
    # 1:30:00 is a number to the base of 60 in YAML 1.1; a long one would take the square of its length.
    if len(node.value) > LINE:
        raise ValueError("a number in it has more digits than any number needs")
    return loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _check_events(text: str, what: str) -> None:
    """Refuse YAML that would be too deep or too much, by its events, which nest nothing."""
    sizes: dict[str | None, int] = {}
    # Of the whole and of every container that is open: its anchor, and how many values it holds so far.
    open_ones: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_Loader):
        anchor, size = getattr(event, "anchor", None), int(isinstance(event, yaml.ScalarEvent))
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((anchor, 1))
            if len(open_ones) > DEPTH + 1:
                raise _too_deep(what)
            continue
        if isinstance(event, yaml.AliasEvent):
            # What is still open holds its alias, and so stands for no end of values.
            size = sizes.get(anchor, YAML_NODES + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_ones.pop()
        sizes[anchor] = size
        outer, count = open_ones[-1]
        open_ones[-1] = (outer, count + size)
        if count + size > YAML_NODES:
            raise UntrustedError(f"{what} stands for more than {YAML_NODES:,} values; it is not read")


def _bounded(content: str | bytes, what: str) -> str:
    if len(content) > TEXT_BYTES:
        raise UntrustedError(f"{what} has more than {TEXT_BYTES:,} bytes; no file of its kind needs them")
    return read_text(content, what) if isinstance(content, bytes) else content


def _too_deep(what: str) -> UntrustedError:
    return UntrustedError(f"{what} is nested deeper than {DEPTH} levels; it is not read")


def shown(text: object, most: int = LINE) -> str:
    r"""Anything that comes from elsewhere as one visible line of bounded length, in which nothing is hidden.

    Line breaks and tabs become spaces, other control characters their pictures; what turns the direction of a line,
    has no width or no picture becomes U+FFFD.

    Args:
        text: Any value.
        most: Characters kept.

    >>> shown("a\n\n# b\u202e\x1b[2K")
    'a # b�␛[2K'
    """
    whole = str(text)
    # Some way beyond what is kept, since runs of spaces become one.
    line = HIDDEN.sub("\ufffd", show_controls(" ".join(whole[: 8 * most].split())))
    return line if len(line) <= most and len(whole) <= 8 * most else line[: most - 1] + "…"


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


def _picture(char: str) -> str:
    if char in "\t\n" or not _CONTROLS.match(char):
        return char
    if ord(char) < 0x20:
        return chr(0x2400 + ord(char))
    return "\u2421" if char == "\x7f" else "\ufffd"


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

HIDDEN = re.compile(
    # Line breaks of Unicode, and what turns the direction of what follows, so that a line reads otherwise than it is.
    "[\u0085\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # Without width, or with a width and nothing to see; and tags, which spell out invisible words.
    "\u00ad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
    # Joiners where no script and no emoji needs them: beside plain letters, or at an end.
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
"""Characters of which a reader sees nothing and which change what the rest looks like."""

_UNSEEN = re.compile(f"{HIDDEN.pattern}|[\x7f-\x9f\ud800-\udfff]")


def escape_unseen(text: str) -> str:
    r"""JSON that says the same, in which all that steers a terminal or is not seen stands as its number.

    >>> escape_unseen('"a\u202e"')
    '"a\\u202e"'
    """
    return _UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], text)
