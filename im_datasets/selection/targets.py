"""What is asked by target examples → the order of rows by them: which encoder tells nearness, and one pass over texts.

How the targets take turns, ``turns`` says.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from im_datasets.common.errors import SelectionError
from im_datasets.data.arrow import RowNumbers
from im_datasets.selection.contamination import EvaluationIndex, words
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.turns import Cosines, TargetOrder
from im_datasets.selection.walk import Texts

if TYPE_CHECKING:
    from im_datasets.indicators.target.indicator import TargetSimilarity

BLOCK = 4096
"""Rows of which the texts are held at a time; enough for batches of equal length."""


def target_similarity(request: SelectionRequest, embedder: Any) -> "TargetSimilarity | None":
    """The indicator that tells nearness to a request's targets; None where it names none.

    Args:
        request: What is asked; its targets are read here unless they are such an indicator.
        embedder: The sentence encoder, for where no model is named.

    Raises:
        SelectionError: The indicator has its own model and another one is named, or the encoder is of another kind.
        IndicatorError: The targets hold no pair.
        SourceError: The targets cannot be found or read.
        ColumnsError: Instruction and response of the targets cannot be told from their column names.
    """
    if request.targets is None:
        return None
    # Opens no model, but imports what reads datasets.
    from im_datasets.indicators.target.indicator import TargetSimilarity
    from im_datasets.models.embedder import Embedder

    if isinstance(request.targets, TargetSimilarity):
        if request.target_model is not None:
            raise SelectionError("the targets are a TargetSimilarity with its own model; leave target_model out")
        return request.targets
    if request.target_model is not None:
        embedder = Embedder(request.target_model, kind="causal")
    if not isinstance(embedder, Embedder):
        raise SelectionError(f"targets need an Embedder, not a {type(embedder).__name__}; pass one, or target_model")
    return TargetSimilarity(targets=request.targets, embedder=embedder)


def describe_targets(similarity: "TargetSimilarity") -> dict[str, Any]:
    """The targets without their texts, and what told nearness to them, as plain data for a record.

    Raises:
        ModelError: The model cannot be had.
    """
    embedder = similarity.embedder
    return {**similarity.targets.describe(), "kind": embedder.kind, "model": embedder.describe()}


def index_targets(similarity: "TargetSimilarity") -> EvaluationIndex | None:
    """The instructions of the targets, to be looked for in rows; None where none of them has a word in it."""
    texts = similarity.targets.instructions
    return EvaluationIndex.build(texts) if any(map(words, texts)) else None


def order_by_targets(similarity: "TargetSimilarity", texts: Texts, rows: RowNumbers, limit: int) -> TargetOrder:
    """The order in which targets take rows.

    Args:
        similarity: The targets, and the encoder.
        texts: Of the dataset.
        rows: Numbers of the rows to order.
        limit: How many of them are likely to be asked for.

    Raises:
        ModelError: The encoder's model cannot be had or is of another kind.
    """
    rows = np.sort(rows)

    def cosines() -> Iterator[Cosines]:
        for start in range(0, len(rows), BLOCK):
            pairs = texts.read(rows[start : start + BLOCK])
            places, scorable = pairs.scorable()
            block = np.full((len(pairs), len(similarity.targets)), np.nan, dtype=np.float32)
            if places:
                block[places] = similarity.cosines(scorable.instructions, scorable.responses)
            yield block

    return TargetOrder(rows, len(similarity.targets), cosines, limit)
