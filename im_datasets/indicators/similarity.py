"""How close a response is to its instruction: the cosine between their sentence embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.indicators.base import Indicator
from im_datasets.models.embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class Similarity(Indicator):
    """Writes ``im_similarity``: cosine between the embeddings of instruction and response, −1 to 1.

    Low where the response speaks of something else; 1 where it repeats the instruction. An addition of this
    project: the paper's rules have no such term.

    Attributes:
        embedder: The sentence encoder.

    Example:
        >>> scores = Similarity()({"instruction": ["Say hello."] * 2, "output": ["Hello!", "Say hello."]})
        >>> [round(value, 6) for value in scores["im_similarity"]][1]
        1.0
    """

    version: ClassVar[str] = "1"

    embedder: Embedder = field(default_factory=Embedder)

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_similarity",)

    @override
    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
        return [*instructions, *responses]

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        vectors = self.embedder.embed(self.embeds(instructions, responses)).astype(np.float64)
        cosines = np.einsum("ij,ij->i", vectors[: len(instructions)], vectors[len(instructions) :])
        # Float32 unit vectors are of length 1 to within 1e-7 only: equal texts must not come out above 1.
        return {"im_similarity": np.clip(cosines, -1.0, 1.0)}
