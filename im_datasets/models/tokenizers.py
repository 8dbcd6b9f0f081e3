"""A tokenizer's name → a function from texts to token ids; every failure one clear line."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ModelError
from im_datasets.models.hub_models import EMBEDDED, embedded_model_folder, one_line_errors, quiet_loading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenize = Callable[[Sequence[str]], list[list[int]]]
"""From texts to their token ids, whole and without special tokens."""


@lru_cache(maxsize=8)
def load_tokenizer(name: str, revision: str | None = None) -> Tokenize:
    """A tokenizer that never truncates, pads or adds special tokens, whatever its files ask for.

    Code from the Hub is never run.

    Args:
        name: ``"embedded"`` (the packaged MiniLM's, offline), a local folder, or a model id of the Hub.
        revision: Branch, tag or commit of a Hub model; None is its default branch.

    Returns:
        A function from texts to their token ids, one list per text in the same order.

    Raises:
        ModelError: The tokenizer cannot be had, is not one, or a revision is given where there is none.
    """
    if revision is not None and (name == EMBEDDED or Path(name).is_dir()):
        raise ModelError(f"{name} is not on the Hub and has no revision {revision!r}; leave revision out")
    if name == EMBEDDED:
        return _load_embedded_tokenizer()
    remedy = "pass a model id of the Hub or a local folder with a tokenizer, such as one with tokenizer.json"
    with one_line_errors(name), quiet_loading():
        tokenizer = open_tokenizer(name, remedy, revision=revision or "main", trust_remote_code=False)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        # verbose=False: a text longer than the model reads is no cause for a warning when it is only counted.
        ids: list[list[int]] = tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    return tokenize


def _load_embedded_tokenizer() -> Tokenize:
    tokenizer = plain_tokenizer((embedded_model_folder()[0] / "tokenizer.json").read_text(encoding="utf-8"))

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return tokenize


def plain_tokenizer(text: str) -> Any:
    """The tokenizer of the `tokenizers` library that a ``tokenizer.json`` describes; neither cuts nor pads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    # Files ask for what their model was trained on: the packaged MiniLM's cuts at 128 tokens and pads to them.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def open_tokenizer(model: str, remedy: str, **options: Any) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model, as transformers opens it.

    Args:
        model: Its id or folder.
        remedy: What to do where it holds no tokenizer, for the message.
        options: As ``AutoTokenizer.from_pretrained`` takes them.

    Raises:
        ModelError: The model holds none; what else the loading library raises is for ``one_line_errors``.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model, **options)
    except Exception as error:
        # For a tokenizer.json that is JSON but not a tokenizer, tokenizers raises a bare Exception.
        if type(error) in {Exception, KeyError}:
            raise ModelError(f"{model} holds no readable tokenizer ({error!r}); {remedy}") from error
        raise
    # A folder that holds a model's config and no vocabulary opens as a tokenizer that knows only its own markers.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        raise ModelError(f"{model} holds no tokenizer (its vocabulary is empty); {remedy}")
    return tokenizer
