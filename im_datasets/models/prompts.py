r"""Conversation turns → the text that a causal language model continues with the response.

Three templates have a name, any text with ``{instruction}`` in it is one too. How text becomes tokens, and what the
model makes of them, is for others.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.data.pairs import Spoken, as_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACE = "{instruction}"
"""What a template holds where the instruction goes."""

CHAT = "chat"
"""The template that comes with the tokenizer."""

BETWEEN_TEXTS = "<|endoftext|>"
"""The token between the texts of a pretraining in the GPT-2 family, and in those that took its name over."""

TEMPLATES = {
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes the "
    f"request.\n\n### Instruction:\n{PLACE}\n\n### Response:",
    "plain": f"{PLACE}\n\n",
}
"""Name → text. Alpaca's is that of its authors for instructions without a separate input."""

TODAY = datetime(2024, 7, 26)
"""The day it is in a chat template that writes the date, so that scores do not change overnight; Llama 3's own."""

Write = Callable[[Spoken], str | None]
"""From turns to the text before the response; None where a chat template refuses such turns."""


def check_template(template: str | None) -> None:
    """See that a template is known or has a place for the instruction.

    Raises:
        IndicatorError: Neither.
    """
    if template is not None and template not in {CHAT, *TEMPLATES} and PLACE not in template:
        raise IndicatorError(
            f"template {template!r} is neither {', '.join(sorted(map(repr, {CHAT, *TEMPLATES})))} nor a text with "
            f"{PLACE} in it; pass one of these, or None for the model's own"
        )


def prompt_writer(template: str | None, tokenizer: "PreTrainedTokenizerBase") -> Write:
    r"""How turns are written under a template.

    Args:
        template: ``"alpaca"``, ``"plain"``, ``"chat"`` or a text with ``{instruction}`` in it; None is the
            tokenizer's chat template where it has one, else Alpaca's.
        tokenizer: Whose chat template counts.

    Raises:
        ModelError: The chat template is wanted and missing, or cannot write one user turn.

    Example:
        >>> prompt_writer("plain", None)((("user", "Name a fruit."),))
        'Name a fruit.\n\n'
    """
    if template is None:
        template = CHAT if tokenizer.chat_template else "alpaca"
    if template == CHAT:
        return _chat_writer(tokenizer)
    text = TEMPLATES.get(template, template)
    return lambda turns: text.replace(PLACE, as_text(turns))


def text_start(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that stands before the first one of a text; None where the tokenizer has none for it.

    Its beginning token, unless that opens the turns of its chat template, as ``<|im_start|>`` does in ChatML: no text
    of the pretraining began with that. Then, and where there is no beginning token, ``<|endoftext|>`` where the
    vocabulary has it, which stood between the texts of the pretraining; else the end token.

    Args:
        tokenizer: Of a causal model.
    """
    from jinja2 import TemplateError

    beginning: int | None = tokenizer.bos_token_id
    turns = ""
    if beginning is not None and tokenizer.chat_template:
        # Who asks for a template that writes nothing is told of it elsewhere.
        with suppress(TemplateError, ValueError):
            turns = _apply(tokenizer, (("user", "Name a fruit."),))
    # It stands once where it begins the text, and again where it opens the response.
    if beginning is not None and turns.count(str(tokenizer.bos_token)) < 2:
        return beginning
    between: int | None = tokenizer.get_added_vocab().get(BETWEEN_TEXTS, tokenizer.eos_token_id)
    return between


def _chat_writer(tokenizer: "PreTrainedTokenizerBase") -> Write:
    from jinja2 import TemplateError

    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {name} has no chat template; pass template='alpaca' or a text of yours")

    def write(turns: Spoken) -> str | None:
        try:
            text = _apply(tokenizer, turns)
        except TemplateError:
            return None
        return text if _says_all(text, turns) else None

    # Of several templates without a default, transformers takes none.
    has_default = not isinstance(tokenizer.chat_template, dict) or "default" in tokenizer.chat_template
    if not has_default or write((("user", "Name a fruit."),)) is None:
        raise ModelError(f"the chat template of {name} does not write a user turn; pass template='alpaca'")
    return write


def _apply(tokenizer: Any, turns: Spoken) -> str:
    # A tool call is the assistant's; no chat template knows a role of its own for it.
    messages = [{"role": "assistant" if role == "tool call" else role, "content": text} for role, text in turns]
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=dateless(tokenizer.get_chat_template()), tokenize=False, add_generation_prompt=True
    )
    return text


_DATE = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")


@lru_cache(maxsize=8)
def dateless(chat_template: str) -> str:
    """A chat template in which it is always ``TODAY``; transformers lets nobody pass it another clock.

    Example:
        >>> dateless("Today: {{ strftime_now('%d %b %Y') }}")
        'Today: {{ "26 Jul 2024" }}'
    """
    return _DATE.sub(lambda call: json.dumps(TODAY.strftime(call[2])), chat_template)


def _says_all(text: str, turns: Spoken) -> bool:
    """False for a template that drops a speaker it does not know.

    Assistant turns may lose their hidden reasoning, and tools' output may be written in another way.
    """
    return all(said.strip() in text for role, said in turns if role not in {"assistant", "tool", "tool call"})
