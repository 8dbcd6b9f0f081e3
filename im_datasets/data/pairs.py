"""Turns of a conversation → its instruction and response, or the reason why there is no pair."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from im_datasets.data.conversations import HALF_PAIR, Reason, Turn, UnscorableRow, mark_half_pairs


def answer_places(turns: list[Turn]) -> list[int]:
    """Positions of the assistant turns that answer in words, tool calls left out."""
    return [place for place, turn in enumerate(turns) if turn.role == "assistant"]


Spoken = tuple[tuple[str, str], ...]
"""Turns with words in them: (role, text) in order."""


def pair_at(turns: list[Turn], answer: int = -1) -> tuple[Spoken, str]:
    """What an assistant turn answers, and the turn's text.

    Args:
        turns: The whole conversation.
        answer: Which assistant turn is the response, counted from 0; -1 is the last.

    Returns:
        The spoken turns before that turn, and the turn's text; neither is empty. ``as_text`` makes one text of
        the turns.

    Raises:
        UnscorableRow: There is no such turn, or one side cannot be scored.
    """
    places = answer_places(turns)
    if not -1 <= answer < len(places) or not places:
        calls = any(turn.role == "tool call" for turn in turns)
        raise UnscorableRow(Reason.ONLY_TOOL_CALLS if calls else Reason.NO_ASSISTANT_TURN)
    place = places[answer]
    # First: where a response says nothing, that is the reason, whatever the instruction is.
    response = _response(turns[place])
    return _instruction(turns[:place]), _whole(response)


def question_at(turns: list[Turn], answer: int = -1) -> Spoken:
    """What an assistant turn answers, as ``pair_at`` gives it, whatever that turn says.

    Args:
        turns: The whole conversation.
        answer: Which assistant turn, counted from 0; -1 is the last.

    Returns:
        The spoken turns before that turn; where there is no such turn, the first turn of the user.

    Raises:
        UnscorableRow: There is nothing to read.
    """
    places = answer_places(turns)
    if -1 <= answer < len(places) and places:
        return _instruction(turns[: places[answer]])
    return _instruction([turn for turn in turns if turn.role == "user"][:1])


def as_text(spoken: Spoken) -> str:
    """Spoken turns as one text: a single user turn is its bare text, else the speaker stands before each turn."""
    if len(spoken) == 1 and spoken[0][0] == "user":
        return spoken[0][1]
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in spoken)


def _whole(text: str) -> str:
    """The text, if it can be written down: JSON within a value can spell half a surrogate pair."""
    if HALF_PAIR in mark_half_pairs(text):
        raise UnscorableRow(Reason.BROKEN_TEXT)
    return text


def _instruction(turns: list[Turn]) -> Spoken:
    """The turns that have words in them."""
    if any(turn.not_text for turn in turns):
        raise UnscorableRow(Reason.INSTRUCTION_NOT_TEXT)
    if any(turn.media or _stands_for_media(turn.text or "") for turn in turns):
        raise UnscorableRow(Reason.PLACEHOLDER)
    spoken = tuple((turn.role, _whole(turn.text)) for turn in turns if turn.text and turn.text.strip())
    if not spoken:
        raise UnscorableRow(Reason.MISSING_INSTRUCTION)
    return spoken


def _response(turn: Turn) -> str:
    if turn.not_text:
        raise UnscorableRow(Reason.RESPONSE_NOT_TEXT)
    text = turn.text
    if turn.media or (text and (is_media_reference(text) or _MARKDOWN_IMAGE.fullmatch(text.strip()))):
        raise UnscorableRow(Reason.PLACEHOLDER)
    if text is None:
        raise UnscorableRow(Reason.MISSING_RESPONSE)
    if not text.strip():
        raise UnscorableRow(Reason.BLANK_RESPONSE if text else Reason.EMPTY_RESPONSE)
    if _NO_OUTPUT.fullmatch(text.strip()):
        raise UnscorableRow(Reason.EMPTY_RESPONSE)
    if _has_unfilled_template(text):
        raise UnscorableRow(Reason.TEMPLATE)
    return text


# Blank within the line only: over several lines, n blank ones would take n² steps.
_MEDIA = re.compile(
    r"(?:\A|[.?!。？！])\s*<(?:image|audio|video)>|^[^\S\n]*<(?:image|audio|video)>[^\S\n]*$", re.I | re.M
)
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
# Alpaca has <nooutput> for responses, beside its <noinput>.
_NO_OUTPUT = re.compile(r"<\s*no\s*(?:out|in)put\s*>\.?", re.I)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
# Double braces of LaTeX, as in \frac{{a}}{b} or x^{{2}}, only group.
_TEMPLATE = re.compile(r"(?<![A-Za-z0-9^_\\{}$])\{\{\s*[A-Za-z_][\w .-]+?\}\}(?!\})")
_MARKER_NOISE = re.compile(r"[\s<>()\[\]\"'`.\\]+")
# A tag with attributes, as in <img alt="image">, is code and no mention.
_BRACKETED_MEDIA = re.compile(
    r"(?![^>]*=\")[\[(<][^<>\[\]()]*\b(?:image|photo|photograph|picture|audio|video|painting|figure)s?\b[^<>\[\]()]*[\])>]\.?",
    re.I,
)


NO_INPUT_MARKERS = frozenset(
    {"noinput", "noinputs", "noinputrequired", "noinputneeded", "noinputprovided", "notapplicable", "n/a", "none"}
)
"""An input that is one of these, whatever its case, spaces, quotes and brackets, says that there is no input."""


def is_no_input(text: str) -> bool:
    """True for an empty input and for the markers of Alpaca that say there is none, such as ``<noinput>``."""
    return not text.strip() or (len(text) < 40 and _MARKER_NOISE.sub("", text.lower()) in NO_INPUT_MARKERS)


def is_media_reference(text: str) -> bool:
    """True for an input that is only a bracketed mention of a picture or recording: ``[Image of a cat]``."""
    return len(text) < 200 and _BRACKETED_MEDIA.fullmatch(text.strip()) is not None


def _stands_for_media(text: str) -> bool:
    """``<image>`` and the like beside a sentence or on a line of their own; elsewhere they are code."""
    return "<" in text and _MEDIA.search(text) is not None


def _has_unfilled_template(text: str) -> bool:
    """``{{name}}`` in prose; in code, HTML and Jinja double braces are the answer itself."""
    if "{{" not in text or "</" in text or "{%" in text:
        return False
    return _TEMPLATE.search(_CODE.sub("", text)) is not None


@dataclass(frozen=True)
class Pairs:
    """Instruction-response pairs of a batch, one per row.

    Attributes:
        contexts: What each response answers, as (role, text) turns, shape (n,); empty where there is a reason.
        responses: Shape (n,); empty where there is a reason.
        reasons: Shape (n,); a `Reason` as text, or an empty string for a row that can be scored.
    """

    contexts: list[Spoken]
    responses: list[str]
    reasons: list[str]

    @classmethod
    def of(cls, instructions: Sequence[str], responses: Sequence[str]) -> Self:
        """Pairs of one user turn and its response each, all of them scorable."""
        contexts: list[Spoken] = [(("user", text),) for text in instructions]
        return cls(contexts, list(responses), [""] * len(contexts))

    @cached_property
    def instructions(self) -> list[str]:
        """Each context as one text, shape (n,)."""
        return [as_text(context) for context in self.contexts]

    def scorable(self) -> tuple[list[int], Self]:
        """The rows without a reason, and their pairs."""
        rows = [row for row, reason in enumerate(self.reasons) if not reason]
        if len(rows) == len(self):
            return rows, self
        return rows, type(self)([self.contexts[r] for r in rows], [self.responses[r] for r in rows], [""] * len(rows))

    def __len__(self) -> int:
        return len(self.reasons)
