"""A conversation and its last answer → the tokens that a reward model reads, in the format it was trained on.

Over-long inputs are cut by one rule. The prompt loses its beginning, down to ``PROMPT_FLOOR`` tokens or a quarter of
what the model reads, whichever is less; then the response loses its end. Tokens that stand before the prompt (a
beginning-of-text token, ``[CLS]``) or after the response (the end of the turn, ``[SEP]``) are never cut: it is on
these that reward models put their score. The collator of Open-Assistant's trainer cuts so too, up to the end token.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.data.pairs import Spoken, as_text
from im_datasets.models.batching import Tokens
from im_datasets.models.prompts import dateless

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED = ("oasst", "chat", "pair", "plain")
"""The formats that have a name; any other is a custom one with ``{instruction}`` and ``{response}``."""

PLAIN = "{instruction}\n\n{response}"
"""The plain format, written as a custom one."""

PROMPT_FLOOR = 256
"""Tokens of a prompt that stay when prompt and response are both too long."""

REFUSED = 1
"""The group of sequences that stand for rows which the model's template refuses."""

PROMPTER, ASSISTANT, SYSTEM, END = "<|prompter|>", "<|assistant|>", "<|system|>", "<|endoftext|>"
"""The markers of Open-Assistant's format."""

_TURN_JOIN = "\n\n"
_CANNOT_CHAT = "the tokenizer's chat template cannot write a question and its answer"
# In no row: stands for the response where its place in a rendered conversation is sought.
_STAND_IN = "im-datasets:response:8d1f"
_CHAT_ROLES = {"system": "system", "assistant": "assistant", "tool": "tool", "tool call": "assistant"}


class Format(ABC):
    """From items, each a context and its ("assistant", response) turn, to tokens."""

    @abstractmethod
    def tokenize(self, items: Sequence[Spoken]) -> list[Tokens]:
        """The tokens of items, in order; group ``REFUSED`` for one that cannot be written in this format."""


def check_template(template: str | None) -> None:
    """Check a ``template=`` setting.

    Raises:
        IndicatorError: Neither a known name nor a string with ``{instruction}`` before ``{response}``.
    """
    if template is None or template in NAMED:
        return
    try:
        parsed = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        raise IndicatorError(f"cannot read the template {template!r}: {error}; {_ACCEPTED}") from error
    if parsed != [["instruction", "", None], ["response", "", None]]:
        raise IndicatorError(f"template {template!r} has the fields {[name for name, _, _ in parsed]}; {_ACCEPTED}")


_ACCEPTED = (
    f"pass one of {', '.join(NAMED)}, or a text with {{instruction}} and then {{response}}, each once and bare, and "
    "all other braces doubled"
)


def choose_template(model_type: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The format a model was trained on, as far as its files say.

    In this order: ``"oasst"`` for the Open-Assistant Pythia class; ``"chat"`` where the tokenizer has a chat
    template; ``"oasst"`` where it knows ``<|prompter|>`` and ``<|assistant|>``; ``"pair"`` where it puts a separator
    between the two texts of a pair, as the tokenizers of encoders do; else ``"plain"``.
    """
    if model_type == "gpt_neox_reward_model":
        return "oasst"
    if tokenizer.chat_template:
        return "chat"
    if _knows(tokenizer, PROMPTER, ASSISTANT):
        return "oasst"
    ids: list[int] = tokenizer("a", "a")["input_ids"]
    return "pair" if tokenizer.sep_token_id is not None and tokenizer.sep_token_id in ids[1:-1] else "plain"


def open_format(template: str, tokenizer: "PreTrainedTokenizerBase", limit: int) -> Format:
    """A format ready to tokenise.

    Args:
        template: A name or a custom format.
        tokenizer: The model's.
        limit: Tokens that the model reads of an input.

    Raises:
        ModelError: The tokenizer cannot serve this format.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} does not say which token stands for which text; Reward needs a tokenizer "
            "that the tokenizers library runs, such as one with tokenizer.json"
        )
    if template == "pair":
        return _PairFormat(tokenizer, limit)
    kinds = {"oasst": _Oasst, "chat": _Chat}
    wording = kinds[template](tokenizer) if template in kinds else _Custom(PLAIN if template == "plain" else template)
    return _TextFormat(tokenizer, limit, wording)


class Pieces(NamedTuple):
    """A sequence in five runs of tokens; prompt and response may be cut, the others never."""

    head: list[int]
    prompt: list[int]
    middle: list[int]
    response: list[int]
    tail: list[int]


def cut(pieces: Pieces, limit: int) -> Pieces:
    """The pieces with ``limit`` tokens in all at most, by the rule of this module.

    Raises:
        IndicatorError: What is never cut leaves no room.

    Example:
        >>> cut(Pieces([1], [2, 3, 4, 5], [], [6, 7, 8], [9]), 6)
        Pieces(head=[1], prompt=[5], middle=[], response=[6, 7, 8], tail=[9])
    """
    kept = len(pieces.head) + len(pieces.middle) + len(pieces.tail)
    room = limit - kept
    if room < 1:
        raise IndicatorError(f"{limit} tokens leave no room beside the {kept} of the template; raise max_tokens")
    floor = min(PROMPT_FLOOR, limit // 4, room)
    prompt = min(len(pieces.prompt), max(floor, room - len(pieces.response)))
    return pieces._replace(
        prompt=pieces.prompt[len(pieces.prompt) - prompt :], response=pieces.response[: room - prompt]
    )


class _Wording(ABC):
    """How a context and a response become one text."""

    special: bool = True
    """Whether the tokenizer adds its own special tokens around the text."""

    @abstractmethod
    def text(self, item: Spoken) -> str | None:
        """The text; None where there is none."""

    @abstractmethod
    def span(self, item: Spoken, text: str) -> tuple[int, int]:
        """Where the response stands in the text."""


class _Joined(_Wording):
    """A wording of three parts: before the response, the response, after it."""

    @abstractmethod
    def parts(self, item: Spoken) -> tuple[str, str, str]: ...

    def text(self, item: Spoken) -> str:
        return "".join(self.parts(item))

    def span(self, item: Spoken, text: str) -> tuple[int, int]:  # noqa: ARG002
        before, response, _ = self.parts(item)
        return len(before), len(before) + len(response)


class _Oasst(_Joined):
    """``<|prompter|>x<|endoftext|><|assistant|>y<|endoftext|>``, earlier turns alternating in the same way.

    A system turn is ``<|system|>s<|endoftext|>`` where the tokenizer knows the marker, else it is joined to the first
    prompter turn. Turns in a row of one side are one turn, a blank line between.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not _knows(tokenizer, PROMPTER, ASSISTANT):
            raise ModelError(
                f"the tokenizer does not know {PROMPTER} and {ASSISTANT}, which the template 'oasst' is made of; "
                "pass another template"
            )
        if not _knows(tokenizer, END) and tokenizer.eos_token is None:
            raise ModelError(f"the tokenizer has no end token, which the template 'oasst' needs; {_ACCEPTED}")
        self.end = END if _knows(tokenizer, END) else str(tokenizer.eos_token)
        self.markers = {"user": PROMPTER, "assistant": ASSISTANT}
        if _knows(tokenizer, SYSTEM):
            self.markers["system"] = SYSTEM

    def parts(self, item: Spoken) -> tuple[str, str, str]:
        turns = fold(item[:-1], keep_system="system" in self.markers)
        history = "".join(f"{self.markers[role]}{text}{self.end}" for role, text in turns)
        return history + ASSISTANT, item[-1][1], self.end


class _Custom(_Joined):
    """A format string; a conversation's turns are the instruction as one text."""

    def __init__(self, template: str) -> None:
        words = [""]
        for literal, field, _, _ in Formatter().parse(template):
            words[-1] += literal
            words += [] if field is None else [""]
        self.before, self.between, self.after = words

    def parts(self, item: Spoken) -> tuple[str, str, str]:
        return f"{self.before}{as_text(item[:-1])}{self.between}", item[-1][1], self.after


class _Chat(_Wording):
    """The tokenizer's own chat template, which writes all special tokens itself.

    Where it refuses or drops a turn of a conversation as it is (no system turn allowed, say), system and tool turns
    are joined to the user's; where it refuses that too, the row cannot be scored.
    """

    special = False

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from jinja2 import TemplateError

        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template; pass another template")
        self.template = dateless(tokenizer.get_chat_template())
        probe = (("user", "Name a fruit."), ("assistant", "An apple."))
        try:
            text = self._render(probe)
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"{_CANNOT_CHAT} ({error}); pass another template") from error
        if not all(said in text for _, said in probe):
            raise ModelError(f"{_CANNOT_CHAT} (it makes {text!r} of them); pass another template")

    def text(self, item: Spoken) -> str | None:
        from jinja2 import TemplateError

        folded = (*fold(item[:-1]), item[-1])
        for turns in dict.fromkeys((item, folded)):
            try:
                text = self._render(turns)
            except TemplateError:
                continue
            # A template may drop a speaker it does not know, or an earlier answer's hidden reasoning.
            if all(said.strip() in text for role, said in turns if _CHAT_ROLES.get(role) not in {"assistant", "tool"}):
                return text
        return None

    def span(self, item: Spoken, text: str) -> tuple[int, int]:
        """Found by writing another response in its place; the very end where the template changes the rest too."""
        other = self.text((*item[:-1], (item[-1][0], _STAND_IN))) or ""
        before, _, after = other.partition(_STAND_IN)
        if text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text):
            return len(before), len(text) - len(after)
        return len(text), len(text)

    def _render(self, turns: Spoken) -> str:
        messages = [{"role": _CHAT_ROLES.get(role, "user"), "content": text} for role, text in turns]
        return str(
            self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=False
            )
        )


def fold(turns: Spoken, *, keep_system: bool = False) -> Spoken:
    r"""The same as turns of two sides that take turns: neighbours of one side become one, a blank line between.

    Args:
        turns: (role, text) turns; every role but the assistant's is on the user's side.
        keep_system: Whether system turns stay turns of their own.

    Example:
        >>> fold((("system", "Be brief."), ("user", "Why?")))
        (('user', 'Be brief.\n\nWhy?'),)
    """
    folded: list[tuple[str, str]] = []
    for role, text in turns:
        system = keep_system and role == "system"
        side = "system" if system else "assistant" if _CHAT_ROLES.get(role) == "assistant" else "user"
        if folded and folded[-1][0] == side:
            folded[-1] = (side, folded[-1][1] + _TURN_JOIN + text)
        else:
            folded.append((side, text))
    return tuple(folded)


@dataclass(frozen=True, eq=False)
class _TextFormat(Format):
    """One text per item."""

    tokenizer: "PreTrainedTokenizerBase"
    limit: int
    wording: _Wording

    def tokenize(self, items: Sequence[Spoken]) -> list[Tokens]:
        texts = [self.wording.text(item) for item in items]
        sequences = _encode(self.tokenizer, [text or "" for text in texts], special=self.wording.special)["input_ids"]
        return [self._tokens(item, text, ids) for item, text, ids in zip(items, texts, sequences, strict=True)]

    def _tokens(self, item: Spoken, text: str | None, ids: list[int]) -> Tokens:
        if text is None or not ids:
            return Tokens([0], group=REFUSED)
        # A chat template writes the beginning token, and some tokenizers add it once more.
        doubled = ids[0] == self.tokenizer.bos_token_id and ids[:1] == ids[1:2]
        if len(ids) - doubled <= self.limit:
            return Tokens(ids[doubled:], start=len(ids) - doubled)
        short = list(chain(*cut(self._pieces(item, text, doubled), self.limit)))
        return Tokens(short, start=len(short), truncated=True)

    def _pieces(self, item: Spoken, text: str, doubled: int) -> Pieces:
        encoding = _encode(self.tokenizer, [text], special=self.wording.special, return_offsets_mapping=True)
        ids, owners = encoding["input_ids"][0][doubled:], encoding.sequence_ids(0)[doubled:]
        begins = [begin for begin, _ in encoding["offset_mapping"][0][doubled:]]
        # Special tokens of the tokenizer's own belong to no text; a template's beginning token is text to it.
        head = int(ids[0] == self.tokenizer.bos_token_id)
        while head < len(ids) and owners[head] is None:
            head += 1
        tail = len(ids)
        while tail > head and owners[tail - 1] is None:
            tail -= 1
        start, stop = self.wording.span(item, text)
        first = next((place for place in range(head, tail) if begins[place] >= start), tail)
        after = next((place for place in range(first, tail) if begins[place] >= stop), tail)
        return Pieces(ids[:head], ids[head:first], [], ids[first:after], ids[after:])


@dataclass(frozen=True, eq=False)
class _PairFormat(Format):
    """The instruction and the response as the two texts of a pair, as the tokenizer joins them."""

    tokenizer: "PreTrainedTokenizerBase"
    limit: int

    def tokenize(self, items: Sequence[Spoken]) -> list[Tokens]:
        encoding = _encode(
            self.tokenizer, [as_text(item[:-1]) for item in items], [item[-1][1] for item in items], special=True
        )
        return [self._tokens(ids, encoding.sequence_ids(place)) for place, ids in enumerate(encoding["input_ids"])]

    def _tokens(self, ids: list[int], owners: list[int | None]) -> Tokens:
        first = [place for place, owner in enumerate(owners) if owner == 0]
        second = [place for place, owner in enumerate(owners) if owner == 1]
        if not first or not second:
            return Tokens([0], group=REFUSED)
        # Between the texts, before and after them, stand the special tokens.
        edges = [0, first[0], first[-1] + 1, second[0], second[-1] + 1, len(ids)]
        pieces = Pieces(*(ids[start:stop] for start, stop in pairwise(edges)))
        truncated = len(ids) > self.limit
        if truncated:
            pieces = cut(pieces, self.limit)
        before = len(pieces.head) + len(pieces.prompt) + len(pieces.middle)
        return Tokens(list(chain(*pieces)), start=before, truncated=truncated)


def _encode(tokenizer: "PreTrainedTokenizerBase", *texts: list[str], special: bool, **options: Any) -> Any:
    """Whole texts as the tokenizer reads them; several at a time, never cut or padded."""
    return tokenizer(
        *texts,
        add_special_tokens=special,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
        **options,
    )


def _knows(tokenizer: "PreTrainedTokenizerBase", *markers: str) -> bool:
    """Whether these are single tokens of the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    return all(marker in vocabulary for marker in markers)
