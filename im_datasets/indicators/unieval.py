"""UniEval: yes/no questions about a response, answered by a T5 that was trained to judge dialogue.

The score of a question is p(Yes) / (p(Yes) + p(No)) at the first word of the answer. Zhong et al. 2022, "Towards a
Unified Multi-Dimensional Evaluator for Text Generation", arXiv 2210.07197; the wording is that of ``add_question``
in the authors' ``utils.py`` (github.com/maszhongming/UniEval), task "dialogue".
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from typing_extensions import override

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Batch, scatter
from im_datasets.indicators.model import ModelIndicator
from im_datasets.indicators.t5_first_step import first_decoder_state
from im_datasets.models.batching import Tokens
from im_datasets.models.checkpoints import Kind, Loaded
from im_datasets.models.devices import on_rank
from im_datasets.models.inference import BatchRunner, TensorBatch
from im_datasets.models.meter import count

if TYPE_CHECKING:
    import torch

DIMENSIONS: dict[str, str] = {
    "naturalness": "question: Is this a natural response in the dialogue? </s> response: {response}",
    "coherence": (
        "question: Is this a coherent response given the dialogue history? </s> response: {response} </s> "
        "dialogue history: {instruction}"
    ),
    "engagingness": (
        "question: Is this an engaging and informative response according to the dialogue history and fact? </s> "
        "response: {response} </s> dialogue history: {instruction} </s> fact: {fact}"
    ),
    "groundedness": (
        "question: Is this response consistent with knowledge in the fact? </s> response: {response} </s> fact: {fact}"
    ),
    "understandability": "question: Is this an understandable response in the dialogue? </s> response: {response}",
}
"""Published dimension → its question. ``</s>`` becomes T5's end token."""

BY_SENTENCE = frozenset({"im_engagingness"})
"""Columns whose question is asked of every sentence of the response and summed, as the authors' ``DialogEvaluator``
does."""

MAX_TOKENS = 1024
"""Tokens the authors' scorer reads of an input."""


class _Row(NamedTuple):
    """What the questions speak of; the names are those of the fields in a question."""

    instruction: str
    response: str
    fact: str


@dataclass(frozen=True, kw_only=True)
class UniEval(ModelIndicator):
    """Naturalness, coherence and understandability of a response, or any other yes/no questions, each in [0, 1].

    The dialogue history is the instruction; of a conversation the texts of all turns before the response, one per
    line, without the speakers' names, as in the authors' data. Over-long inputs lose their end, which in the
    coherence input is the history.

    ``engagingness`` is the sum of the scores of the response's sentences, as the authors compute it, and so grows
    with length. They split sentences with NLTK's Punkt; here a sentence ends at white space after ``.``, ``!`` or
    ``?``, which differs after abbreviations.

    What runs the model, and where, is set as for every ``ModelIndicator``.

    Attributes:
        model: A T5 that answers Yes or No: a model id of the Hub, or a local folder.
        dtype: float32 on every device unless asked otherwise: the v3 rule subtracts two nearly equal scores.
        max_tokens: Tokens read of an input; None reads all of it.
        dimensions: Published dimensions, keys of ``DIMENSIONS``; each writes ``im_<dimension>``.
        questions: Questions of your own: column → the whole input, with ``{response}``, ``{instruction}`` and
            ``{fact}`` where these go. No column may have the name of a published dimension's.
        fact: The fact that engagingness and groundedness judge by, the same for all rows.
        fact_column: Column of a fact for each row, read when the indicator itself is mapped; None in a row is an
            empty fact.

    Raises:
        IndicatorError: Nothing is asked, a dimension is unknown or asked twice, or a question cannot be read or
            would write a published dimension's column. While scoring: ``fact_column`` is not there, holds something
            that is not text, or cannot be read, because UniEval is not mapped by itself.
        ModelError: While scoring: the model is no T5, or does not tell Yes from No.

    Example:
        >>> polite = {"my_polite": "question: Is it polite? </s> {response}"}
        >>> UniEval(dimensions=("coherence",), questions=polite).writes
        ('im_coherence', 'my_polite')
    """

    version: ClassVar[str] = "2"
    kind: ClassVar[Kind] = "seq2seq"

    model: str = "MingZhong/unieval-dialog"
    dtype: str | None = "float32"
    max_tokens: int | None = MAX_TOKENS
    dimensions: tuple[str, ...] = ("naturalness", "coherence", "understandability")
    questions: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    fact: str = ""
    fact_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Tuples, however they came (a rule's JSON holds lists): settings are hashable.
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        object.__setattr__(self, "questions", tuple(map(tuple, dict(self.questions).items())))
        if unknown := [name for name in self.dimensions if name not in DIMENSIONS]:
            raise IndicatorError(f"no dimensions {unknown}; known: {', '.join(DIMENSIONS)}; others go into questions=")
        for column, question in dict(self.questions).items():
            _check_question(column, question)
        published = {f"im_{name}" for name in DIMENSIONS}
        if taken := [column for column in dict(self.questions) if column in published]:
            raise IndicatorError(f"{taken} are columns of the published questions; give yours names of their own")
        columns = [*(f"im_{name}" for name in self.dimensions), *dict(self.questions)]
        if not columns or len(set(columns)) < len(columns):
            raise IndicatorError(f"UniEval would write the columns {columns}; ask at least one question, each once")

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return tuple(self._questions())

    @override
    def engine(self) -> BatchRunner:
        loaded = self.checkpoint.load()
        return BatchRunner(
            tokenize=_tokenizing(loaded, self.max_tokens),
            forward=_forward(loaded),
            width=1,
            pad_id=loaded.tokenizer.pad_token_id or 0,
            device=loaded.device,
            budget=loaded.budget,
        )

    @override
    def space(self) -> dict[str, Any]:
        # The item holds the question.
        return {"indicator": "UniEval", "version": self.version}

    @override
    def __call__(self, batch: Batch, rank: int | None = None) -> dict[str, list[float]]:
        if self.fact_column is None:
            return super().__call__(batch, rank)
        facts = _facts(batch, self.fact_column)
        pairs = (self.columns or Columns.detect(name for name in batch if name != self.fact_column)).pairs(batch)
        rows, scorable = pairs.scorable()
        with on_rank(rank):
            scores = self._score(scorable, [facts[row] for row in rows]) if rows else {}
        return {name: scatter(scores.get(name, ()), rows, len(pairs)) for name in self.writes}

    @override
    def score_turns(self, pairs: Pairs) -> dict[str, list[float]]:
        if self.fact_column is not None:
            raise IndicatorError(
                f"fact_column={self.fact_column!r} is read only where UniEval is mapped by itself; run "
                "ds.map(UniEval(fact_column=…), batched=True) and leave fact_column out here"
            )
        return self._score(pairs, [self.fact] * len(pairs))

    def _questions(self) -> dict[str, str]:
        """Column → question."""
        return {f"im_{name}": DIMENSIONS[name] for name in self.dimensions} | dict(self.questions)

    def _score(self, pairs: Pairs, facts: Sequence[str]) -> dict[str, list[float]]:
        """Ask all questions of all pairs at once, so that each distinct input goes through the model once."""
        histories = ["\n".join(text for _, text in context) for context in pairs.contexts]
        rows = list(map(_Row, histories, pairs.responses, facts))
        inputs = [_inputs(column, question, row) for column, question in self._questions().items() for row in rows]
        computed = self.compute([text for texts in inputs for text in texts])
        answers = zip(map(probability, computed.values[:, 0].tolist()), computed.truncated.tolist(), strict=True)
        scores, cut = [], set()
        for place, texts in enumerate(inputs):
            parts = [next(answers) for _ in texts]
            scores.append(math.fsum(score for score, _ in parts))
            if any(truncated for _, truncated in parts):
                # Inputs stand question by question: a row is counted once, whichever of its questions are cut.
                cut.add(place % len(rows))
        count(truncated=len(cut))
        return {name: scores[i * len(rows) : (i + 1) * len(rows)] for i, name in enumerate(self.writes)}


def probability(logit: float) -> float:
    """1 / (1 + exp(−logit)), the same bits for the same logit; NaN stays NaN.

    Example:
        >>> probability(0.0), probability(-800.0), probability(800.0)
        (0.5, 0.0, 1.0)
    """
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def sentences(text: str) -> list[str]:
    """The sentences of a text: each ends at white space after ``.``, ``!`` or ``?``, closing quotes included.

    Example:
        >>> sentences('I do too . Did you know? "Yes!" he said.')
        ['I do too .', 'Did you know?', '"Yes!"', 'he said.']
    """
    return _SENTENCE_END.split(text.strip())


_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+")


def _inputs(column: str, question: str, row: _Row) -> list[str]:
    """The texts whose scores add up to a row's value: one, or one per sentence of the response."""
    responses = sentences(row.response) if column in BY_SENTENCE else [row.response]
    return [question.format(**row._replace(response=response)._asdict()) for response in responses]


def _facts(batch: Batch, column: str) -> list[str]:
    if column not in batch:
        raise IndicatorError(f"no column {column!r} for the facts in {list(batch)}; pass fact_column= one of these")
    facts = ["" if fact is None else fact for fact in batch[column]]
    if wrong := next((fact for fact in facts if not isinstance(fact, str)), None):
        raise IndicatorError(f"column {column!r} holds {type(wrong).__name__}, not text; a fact is one text per row")
    return facts


def _check_question(column: str, question: str) -> None:
    try:
        named = {field for _, field, _, _ in Formatter().parse(question) if field is not None}
    except ValueError as error:
        raise IndicatorError(f"question for {column!r} cannot be read ({error}); write {{{{ for a brace") from error
    if "response" not in named or not named <= set(_Row._fields):
        raise IndicatorError(
            f"question for {column!r} has the fields {sorted(named)}; it needs {{response}}, and may have "
            "{instruction} and {fact}"
        )


def _tokenizing(loaded: Loaded, max_tokens: int | None) -> Any:
    """Tokens of some texts, over-long ones cut before their end token."""

    def cut(ids: list[int]) -> Tokens:
        if max_tokens is None or len(ids) <= max_tokens:
            return Tokens(ids)
        return Tokens([*ids[: max_tokens - 1], loaded.tokenizer.eos_token_id], truncated=True)

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        ids = loaded.tokenizer(list(texts), truncation=False, return_attention_mask=False, verbose=False)["input_ids"]
        return list(map(cut, ids))

    return tokenize


def _forward(loaded: Loaded) -> Any:
    """logit(Yes) − logit(No) of a batch, shape (batch, 1)."""
    model: Any = loaded.model
    if model.config.model_type != "t5":
        raise ModelError(
            f"{loaded.checkpoint.model} is of the type {model.config.model_type!r}; UniEval asks a T5, such as "
            "MingZhong/unieval-dialog"
        )
    encoder, (yes, no) = _encoder(loaded), _answer_ids(loaded)
    # Two of the head's 32,000 rows: no other word is asked about.
    head = model.lm_head.weight[[yes, no]].float()

    def forward(inputs: TensorBatch) -> "torch.Tensor":
        states = encoder(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
        said = first_decoder_state(model, states, inputs.mask).float()
        logits = (said[:, None, :] * head).sum(-1)
        difference: torch.Tensor = logits[:, :1] - logits[:, 1:]
        return difference

    return forward


# A runner is made for every batch, and torch.compile would begin anew with each.
@lru_cache(maxsize=4)
def _encoder(loaded: Loaded) -> Any:
    import torch

    model: Any = loaded.model
    return torch.compile(model.encoder, dynamic=True) if loaded.checkpoint.compile else model.encoder


def _answer_ids(loaded: Loaded) -> tuple[int, int]:
    """The first tokens of Yes and of No."""
    yes, no = (loaded.tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    if yes == no:
        raise ModelError(
            f"the tokenizer of {loaded.checkpoint.model} does not tell Yes from No; pass a checkpoint trained to "
            "answer so, such as MingZhong/unieval-dialog"
        )
    return yes, no
