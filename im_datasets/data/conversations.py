"""A raw conversation value → its turns.

Works on one row's values, however they are written: OpenAI messages, ShareGPT turns, content as text or as a
list of parts, JSON strings of any of these. Which columns hold them is for ``columns`` to say.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text")
CALL_KEYS = ("tool_calls", "function_call")

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",  # Open-Assistant
    "assistant": "assistant",
    "gpt": "assistant",  # ShareGPT, with human
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",  # OpenAI's later name of it
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",  # Glaive's tool calls as ShareGPT turns
    "ipython": "tool",  # Llama 3.1
    "function_call": "tool call",
    "tool_call": "tool call",
}
"""Role as written, in lower case → role as used here; any other role is kept as it is."""

# image_url is of OpenAI's chat completions, input_image of its responses.
MEDIA_TYPES = {
    f"{prefix}{kind}{suffix}"
    for prefix in ("", "input_")
    for kind in ("image", "audio", "video", "file")
    for suffix in ("", "_url")
}
CALL_TYPES = {"tool_call", "tool_calls", "tool_use", "function_call", "function"}
HIDDEN_TYPES = {"reasoning", "thinking", "redacted_thinking"}


class Reason(StrEnum):
    """Why a row cannot be scored; these words stand in ``im_unscorable`` and on cards."""

    MISSING_RESPONSE = "missing response"
    EMPTY_RESPONSE = "empty response"
    BLANK_RESPONSE = "blank response"
    RESPONSE_NOT_TEXT = "response is not text"
    NO_ASSISTANT_TURN = "no assistant turn"
    ONLY_TOOL_CALLS = "only tool calls"
    MISSING_INSTRUCTION = "missing or empty instruction"
    INSTRUCTION_NOT_TEXT = "instruction is not text"
    PLACEHOLDER = "image, audio or video placeholder"
    TEMPLATE = "unfilled template"
    BROKEN_JSON = "broken JSON"
    UNREADABLE = "unreadable conversation"
    BROKEN_TEXT = "broken text (half a surrogate pair)"


HALF_PAIR = "\ufdd0"
"""Stands for half a surrogate pair, which no file can hold: a code point that Unicode leaves to programs' own use."""

_HALF_PAIRS = re.compile("[\ud800-\udfff]")


def mark_half_pairs(text: str) -> str:
    r"""A text that can be written down; one that holds half a surrogate pair stays one that cannot be scored.

    Args:
        text: As JSON may spell it.

    Example:
        >>> mark_half_pairs("a\ud800") == "a" + HALF_PAIR
        True
    """
    return _HALF_PAIRS.sub(HALF_PAIR, text)


class UnscorableRow(Exception):  # noqa: N818 - a fact about a row that stays inside the package, not an error
    """Carries a row's reason from where it is found to where the row is put down as unscorable."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Turn(NamedTuple):
    """One turn: who speaks, and the text (None = missing); whether it held something that is not text."""

    role: str
    text: str | None
    media: bool = False
    not_text: bool = False


def read_conversation(value: Any) -> list[Turn]:
    """Read a whole conversation.

    Args:
        value: A list of messages, a dict of lists, one message, or a JSON string of one of these.

    Returns:
        The turns in order.

    Raises:
        UnscorableRow: No conversation can be read from it.
    """
    value = _from_json(value)
    if value is None or isinstance(value, str):
        raise UnscorableRow(Reason.NO_ASSISTANT_TURN)
    messages = [value] if is_message(value) else read_list(value)
    return [_turn(_from_json(message)) for message in messages]


def read_text_or_turns(value: Any, role: str) -> list[Turn]:
    """Read a value that may be plain text of one speaker or a message, a list of messages or of parts.

    A string stays text, even where it is valid JSON, unless it is the JSON of messages or a transcript of
    ``Human:`` and ``Assistant:`` paragraphs.
    """
    value = _plain(value)
    if isinstance(value, str):
        if role == "assistant" and _TRANSCRIPT.match(value):
            # Anthropic's preference data writes the whole conversation into the answer's column.
            _, *pieces = _TRANSCRIPT.split(value)
            return [Turn(ROLES[who.lower()], said) for who, said in zip(pieces[::2], pieces[1::2], strict=True)]
        value = _messages_from_json(value)
    if is_message(value) or (isinstance(value, list) and value and all(map(is_message, value))):
        return read_conversation(value)
    return [_content_turn(role, value)]


def read_history(value: Any) -> list[Turn]:
    """Read earlier turns: a list of [question, answer] pairs, or of messages.

    Raises:
        UnscorableRow: Neither of the two.
    """
    value = _from_json(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    items = read_list(value)
    if items and all(map(is_message, items)):
        return read_conversation(items)
    pairs = [_plain(pair) for pair in items]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UnscorableRow(Reason.UNREADABLE)
    return [_content_turn(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]


def is_message(value: Any) -> bool:
    """True for a dict that says who speaks."""
    return isinstance(value, dict) and isinstance(_first(value, ROLE_KEYS), str)


def read_list(value: Any) -> list[Any]:
    """Read a list, however it is written: an array, JSON, or a dict of lists as `datasets` may store dicts.

    Raises:
        UnscorableRow: It is none of these.
    """
    value = _plain(_from_json(value))
    if isinstance(value, list):
        return value
    columns = {key: _plain(items) for key, items in value.items()} if isinstance(value, dict) else {}
    lengths = {len(items) if isinstance(items, list) else -1 for items in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise UnscorableRow(Reason.UNREADABLE)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant): ?")


def _turn(message: Any) -> Turn:
    """One message as a turn.

    Raises:
        UnscorableRow: It is no dict, or does not say who speaks.
    """
    if not is_message(message):
        raise UnscorableRow(Reason.UNREADABLE)
    written = str(_first(message, ROLE_KEYS)).strip()
    turn = _content_turn(ROLES.get(written.lower(), written.lower()), _first(message, CONTENT_KEYS))
    # OpenAI's tool calls stand beside an empty content.
    calls = _first(message, CALL_KEYS)
    if turn.role == "assistant" and calls and not (turn.text or "").strip():
        return turn._replace(role="tool call", text=_as_json(calls), not_text=False)
    return turn


def _content_turn(role: str, content: Any) -> Turn:
    content = _plain(content)
    # pandas writes a missing text as NaN.
    if content is None or (isinstance(content, float) and math.isnan(content)):
        return Turn(role, None)
    if isinstance(content, str):
        return Turn(role, content)
    parts = [content] if isinstance(content, dict) else content
    # Several bare strings are answers to choose from, say, and not the parts of one text.
    is_one_text = isinstance(parts, list) and sum(isinstance(part, str) for part in parts) <= 1
    if is_one_text and all(map(_is_part, parts)):
        return _parts_turn(role, parts)
    return Turn(role, None, not_text=True)


def _is_part(part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(part.get("type"), str) or isinstance(part.get("text"), str)
    return isinstance(part, str)


def _parts_turn(role: str, parts: Iterable[Any]) -> Turn:
    """Text parts joined as they stand; hidden reasoning left out; a turn of calls alone is a tool call."""
    texts: list[str] = []
    calls: list[Any] = []
    media = not_text = False
    for part in parts:
        kind = "text" if isinstance(part, str) else str(part.get("type") or "text")
        if kind in MEDIA_TYPES:
            media = True
        elif kind in CALL_TYPES:
            calls.append(part)
        elif kind not in HIDDEN_TYPES:
            text = part if isinstance(part, str) else _first(part, CONTENT_KEYS)
            not_text = not_text or not isinstance(text, str)
            texts.append(str(text))
    if calls and role == "assistant" and not "".join(texts).strip():
        return Turn("tool call", _as_json(calls), media)
    return Turn(role, None if not_text else "".join(texts), media, not_text)


def _first(value: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first of these keys that holds something; Arrow fills a missing key with None."""
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists."""
    if value is None or isinstance(value, (str, list, dict)):
        return value
    return list(value) if isinstance(value, tuple) else getattr(value, "tolist", lambda: value)()


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _from_json(value: Any) -> Any:
    """A string that opens like a JSON list or object, decoded; anything else as it is.

    Raises:
        UnscorableRow: It opens like JSON and is none.
    """
    if not (isinstance(value, str) and value.lstrip()[:1] in ("[", "{")):
        return value
    try:
        return json.loads(value)
    # json recurses into what is nested, and so a row can exhaust the stack.
    except (ValueError, RecursionError):
        raise UnscorableRow(Reason.BROKEN_JSON) from None


def _messages_from_json(text: str) -> Any:
    """The messages written as JSON in a text, or the text itself."""
    if text.lstrip()[:1] not in ("[", "{") or not any(f'"{key}"' in text for key in ROLE_KEYS):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    messages = value if isinstance(value, list) else [value]
    return value if messages and all(_is_full_message(message) for message in messages) else text


def _is_full_message(value: Any) -> bool:
    """A message with a known role and a content: JSON that only happens to have a key "role" stays text."""
    return (
        is_message(value)
        and str(_first(value, ROLE_KEYS)).lower() in ROLES
        and any(key in value for key in CONTENT_KEYS)
    )
