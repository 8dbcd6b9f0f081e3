"""The generated parts of a card, between markers, so that a card which somebody wrote on can be made anew."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

MARKER = re.compile(r"^<!-- im-datasets:(?P<kind>begin|end) (?P<name>\w+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class _Block:
    """A generated part: its name, its text, and where it stands with its markers."""

    name: str
    text: str
    start: int
    end: int


def _blocks(body: str) -> Iterator[_Block]:
    """Each begin with the first end of its name after it, none inside of another; in time of the text's length."""
    markers = list(MARKER.finditer(body))
    ends = defaultdict(list)
    for match in markers:
        if match["kind"] == "end":
            ends[match["name"]].append(match)
    cursor = 0
    for match in markers:
        if match["kind"] == "end" or match.start() < cursor:
            continue
        candidates = ends[match["name"]]
        place = bisect_left(candidates, match.end(), key=re.Match.start)
        if place < len(candidates):
            cursor = candidates[place].end()
            # The line break after the begin is of the marker.
            text = body[match.end() + 1 : candidates[place].start()]
            yield _Block(match["name"], text, match.start(), cursor)


def find_blocks(body: str) -> dict[str, str]:
    """The generated parts of a card, by name: what stands between their markers."""
    return {block.name: block.text for block in _blocks(body)}


def replace_blocks(body: str, blocks: Mapping[str, str]) -> str:
    """A card's text with these generated parts in place of those of the same names."""
    pieces, cursor = [], 0
    for block in _blocks(body):
        pieces += [body[cursor : block.start], as_block(block.name, blocks.get(block.name, block.text))]
        cursor = block.end
    return "".join([*pieces, body[cursor:]])


def as_block(name: str, text: str) -> str:
    """A generated part between its markers."""
    return f"{marker(name)}\n{text}{marker(name, end=True)}"


def block_digests(blocks: Mapping[str, str]) -> dict[str, str]:
    """Name → sha256 of a generated part."""
    return {name: sha256(text.encode()).hexdigest() for name, text in blocks.items()}


def marker(name: str, *, end: bool = False) -> str:
    """The line before or after a generated part."""
    return f"<!-- im-datasets:{'end' if end else 'begin'} {name} -->"
