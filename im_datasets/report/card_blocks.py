"""The generated parts of a card, between markers, so that a card which somebody wrote on can be made anew."""

import re
from collections.abc import Mapping
from hashlib import sha256

_BLOCK = re.compile(
    r"^<!-- im-datasets:begin (?P<name>\w+) -->\n(?P<text>.*?)^<!-- im-datasets:end (?P=name) -->$",
    re.MULTILINE | re.DOTALL,
)


def find_blocks(body: str) -> dict[str, str]:
    """The generated parts of a card, by name: what stands between their markers."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(body)}


def replace_blocks(body: str, blocks: Mapping[str, str]) -> str:
    """A card's text with these generated parts in place of those of the same names."""
    return _BLOCK.sub(lambda match: as_block(match["name"], blocks.get(match["name"], match["text"])), body)


def as_block(name: str, text: str) -> str:
    """A generated part between its markers."""
    return f"{marker(name)}\n{text}{marker(name, end=True)}"


def block_digests(blocks: Mapping[str, str]) -> dict[str, str]:
    """Name → sha256 of a generated part."""
    return {name: sha256(text.encode()).hexdigest() for name, text in blocks.items()}


def marker(name: str, *, end: bool = False) -> str:
    """The line before or after a generated part."""
    return f"<!-- im-datasets:{'end' if end else 'begin'} {name} -->"
