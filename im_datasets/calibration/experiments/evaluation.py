"""Evaluation sets, and how well a model foresees their reference responses.

The loss is the mean negative log-likelihood in nats over all response tokens of a set, long responses counting for
more, through the same code as ``Perplexity``: the same tokens, no end token among them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.experiments.pool import named_sources
from im_datasets.common.errors import CalibrationError
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.data.prepare import prepare, read_texts
from im_datasets.data.source import load_source
from im_datasets.indicators.likelihood.indicator import likelihood_runner
from im_datasets.models.checkpoints import Loaded


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation set: instructions and the responses a good model should foresee.

    Attributes:
        name: What it is called in the table of runs.
        pairs: Its examples, all of them scorable.
        left_out: Rows without a scorable pair.
    """

    name: str
    pairs: Pairs
    left_out: int = 0

    @property
    def digest(self) -> str:
        """What tells its texts from any others."""
        texts = [self.pairs.contexts, self.pairs.responses]
        return sha256(json.dumps(texts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Losses:
    """What a model lost on each example of a set.

    Attributes:
        sums: Negative log-likelihood of each response in nats, shape (n,).
        tokens: Tokens of each response, shape (n,); 0 where the model's template could not write the example.
        truncated: Examples that were cut to the length the model reads.
    """

    sums: NDArray[np.float64]
    tokens: NDArray[np.int64]
    truncated: int = 0

    @property
    def mean(self) -> float:
        """Nats per response token; NaN when any example gave no finite number, or there are no tokens."""
        tokens, nats = int(self.tokens.sum()), float(self.sums.sum())
        return nats / tokens if tokens and isfinite(nats) else float("nan")


def load_evaluation(data: str, *, limit: int | None = None, columns: Columns | None = None) -> Evaluation:
    """Read an evaluation set with reference responses.

    Args:
        data: A file, folder or Hub id, as ``mine`` reads it, or ``NAME=DATA``.
        limit: Take only so many examples, a seeded sample; None takes all.
        columns: Where instruction and response stand; None finds them by the names of the columns.

    Raises:
        SourceError: It cannot be found or read.
        ColumnsError: Instruction and response cannot be told from the column names.
        CalibrationError: No row holds both an instruction and a reference response.
    """
    ((name, place),) = named_sources([data]).items()
    dataset, mapping = prepare(load_source(place, limit=limit, seed=None if limit is None else 0).dataset, columns)
    pairs = mapping.pairs(read_texts(dataset, mapping)[:])
    rows, scorable = pairs.scorable()
    if not rows:
        raise CalibrationError(f"no example of {place} has an instruction and a reference response")
    return Evaluation(name, scorable, len(pairs) - len(rows))


def load_evaluations(data: Sequence[str], *, limit: int | None = None) -> list[Evaluation]:
    """Read several evaluation sets.

    Raises:
        CalibrationError: None is given, or two have one name; and as ``load_evaluation``.
    """
    if not data:
        raise CalibrationError("no evaluation set; pass --evaluation DATA (instructions with reference responses)")
    # Two of one name would be one column of the table.
    named_sources(data)
    return [load_evaluation(each, limit=limit) for each in data]


def evaluate_losses(
    loaded: Loaded, evaluation: Evaluation, *, template: str | None = None, max_tokens: int | None = None
) -> Losses:
    """What a model loses on each example of a set.

    Args:
        loaded: A causal language model, from files or fresh from a training.
        evaluation: The set.
        template: As for ``Perplexity``.
        max_tokens: Tokens read of an example; None is the model's own limit.

    Returns:
        One sum and count per example, in their order.

    Raises:
        ModelError: The model is not causal, or lacks a start token or the chat template.
    """
    runner = likelihood_runner(loaded, template, max_tokens)
    computed = runner.run(list(zip(evaluation.pairs.contexts, evaluation.pairs.responses, strict=True)))
    sums, tokens = computed.values.astype(np.float64).T
    return Losses(sums, tokens.astype(np.int64), int(computed.truncated.sum()))
