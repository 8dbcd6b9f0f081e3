"""How near a pair lies to some examples of what the model is to do: the cosine to the nearest of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.target.examples import Targets
from im_datasets.models.embedder import Embedder

Cosines = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TargetSimilarity(Indicator):
    """Writes ``im_target_similarity``: cosine of a pair to the nearest of some target examples, −1 to 1.

    For choosing rows for a known job, of which a dozen to some hundred examples are at hand. It says nothing of how
    good a row is: a wrong answer to such a question lies as near as a right one. Targets that are among the rows
    score 1; ``select(…, targets=…)`` leaves them out.

    With ``Embedder(kind="causal", model=…)`` it is RDS+ (Ivison et al. 2025, "Large-Scale Data Selection for
    Instruction Tuning", arXiv 2503.01807): vectors are position-weighted means of a causal model's last hidden states
    over the whole pair. The default embedder is the cheap form, which the paper has as ``Embed``. What is as in the
    paper: the weights, the last layer, prompt and response both, the cosine, the end of an over-long row cut off. What
    is not: a pair is written as instruction, blank line, response, where the authors put marks of their chat format
    before each turn (earlier turns have ``User:`` and ``Assistant:`` here). Which prompt a model should get that was
    trained on another format is not said there.

    Attributes:
        targets: A file, folder, Hub id or Dataset, or a list of rows or of (instruction, response) pairs; read when the
            indicator is made, by the names of their own columns. Held as ``Targets``.
        embedder: The encoder. Cosines of different encoders cannot be compared: those of a causal model are all high.

    Raises:
        IndicatorError: No target holds a pair, or there are more than 5,000.
        SourceError: The targets cannot be found or read.
        ColumnsError: Instruction and response of the targets cannot be told from their column names.

    Example:
        >>> fruit = TargetSimilarity(targets=[("Name a fruit.", "An apple."), ("Name a nut.", "A walnut.")])
        >>> rows = {"instruction": ["Name a berry.", "When does it leave?"], "output": ["A currant.", "At noon."]}
        >>> [round(value, 2) for value in fruit(rows)["im_target_similarity"]]
        [0.6, 0.07]
    """

    version: ClassVar[str] = "1"

    targets: Any
    embedder: Embedder = field(default_factory=Embedder)

    def __post_init__(self) -> None:
        # Now: a worker on another machine has no such file, and values must not change with it.
        object.__setattr__(self, "targets", Targets.read(self.targets))

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_target_similarity",)

    @override
    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
        return _texts(instructions, responses)

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        return {"im_target_similarity": self.cosines(instructions, responses).max(axis=1)}

    def cosines(self, instructions: Sequence[str], responses: Sequence[str]) -> Cosines:
        """The cosine of each pair to each target.

        Returns:
            Shape (n, targets), float32; NaN where the model gave no finite vector.

        Raises:
            ModelError: The embedder's model cannot be had or is of another kind.
        """
        vectors = self.embedder.embed(self.embeds(instructions, responses))
        targets = _target_vectors(self.embedder, self.targets)
        # In double precision and then rounded: the last bits of a product depend on the rows beside it.
        products = (vectors.astype(np.float64) @ targets.T).astype(np.float32)
        return np.clip(products, -1.0, 1.0)

    @override
    def settings(self) -> dict[str, Any]:
        # A record is published: the targets may be anybody's.
        return super().settings() | {"targets": self.targets.describe(), "embedder": asdict(self.embedder)}


# Asked for with every batch.
@lru_cache(maxsize=4)
def _target_vectors(embedder: Embedder, targets: Targets) -> NDArray[np.float64]:
    """Unit vectors of the targets, shape (targets, width)."""
    vectors = embedder.embed(_texts(targets.instructions, targets.responses)).astype(np.float64)
    if not np.isfinite(vectors).all():
        place = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise IndicatorError(f"{embedder.model} gives no finite vector for target {place}; pass another dtype or model")
    return vectors


def _texts(instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
    """What is embedded of each pair; near-duplicates are told by the same texts."""
    return [f"{i}\n\n{r}" for i, r in zip(instructions, responses, strict=True)]
