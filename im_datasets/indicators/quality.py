"""Quality: is the response a whole answer to its instruction, or a degraded one?

A head of two layers over the frozen sentence vectors of a pair and what can be read off its surface. It was
trained to tell a row's own response from spoiled ones (another row's, cut, scrambled, looped, an echo, an empty
phrase, another language), never on human preferences, and it is not part of the paper's method. The training
script, and what each figure means, stand in ``examples/quality``; the figures in ``quality.json`` beside this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from im_datasets.embedding import Embedder
from im_datasets.errors import IndicatorError
from im_datasets.indicators.base import Indicator
from im_datasets.models import EMBEDDED
from im_datasets.surface import surface

WEIGHTS = Path(__file__).with_name("quality.safetensors")
RECORD = Path(__file__).with_name("quality.json")


class Head(NamedTuple):
    """The weights of the two layers, float64.

    Attributes:
        hidden: Shape (units, features).
        hidden_bias: Shape (units,).
        output: Shape (units,).
        output_bias: Shape (1,).
    """

    hidden: NDArray[np.float64]
    hidden_bias: NDArray[np.float64]
    output: NDArray[np.float64]
    output_bias: NDArray[np.float64]

    def logit(self, features: NDArray[np.float64]) -> float:
        """The logit of one pair.

        Args:
            features: Shape (features,), as ``pair_features`` gives them.
        """
        # One row at a time, without BLAS: the bits of a value never depend on the rows beside it.
        units = np.tanh((self.hidden * features).sum(axis=1) + self.hidden_bias)
        return float((self.output * units).sum() + self.output_bias[0])


@dataclass(frozen=True, kw_only=True)
class Quality(Indicator):
    """A whole, matching answer (high) or a degraded one (low), as a logit.

    Reads the first 256 tokens of instruction and response for their meaning, and all of both for their surface.
    Says nothing about truth: a wrong fact, well put, scores as high as a right one.

    Attributes:
        columns: Where instruction and response stand; None finds them by the names of the columns.
        embedder: Must be the embedded model in float32 at its full length: the head was trained on its vectors.

    Example:
        >>> quality = Quality()
        >>> batch = {"instruction": ["Name a fruit."] * 2, "output": ["An apple.", "Name a fruit."]}
        >>> good, echo = quality(batch)["im_quality"]
        >>> good > echo
        True
    """

    version: ClassVar[str] = "1"

    embedder: Embedder = field(default_factory=Embedder)

    def __post_init__(self) -> None:
        """Refuse an embedder that the head does not know.

        Raises:
            IndicatorError: The embedder is not the one the head was trained on.
        """
        settings = (self.embedder.model, self.embedder.dtype, self.embedder.max_tokens)
        if settings != (EMBEDDED, "float32", None):
            raise IndicatorError(
                f"Quality knows only the vectors of Embedder(model={EMBEDDED!r}, dtype='float32', max_tokens=None), "
                f"not those of {self.embedder}; leave embedder out, or drop Quality from the rule"
            )

    @property
    def writes(self) -> tuple[str, ...]:
        """``im_quality``."""
        return ("im_quality",)

    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
        """The instructions and the responses."""
        return [*instructions, *responses]

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> dict[str, list[float]]:
        """Logits of the pairs, shape (n,), unbounded, higher is better.

        Args:
            instructions: Non-blank texts, shape (n,).
            responses: Non-blank texts, shape (n,).

        Raises:
            ModelError: The embedded model is missing.
        """
        head = load_head()
        vectors = self.embedder.embed(self.embeds(instructions, responses))
        asked, answered = vectors[: len(instructions)], vectors[len(instructions) :]
        rows = zip(instructions, responses, asked, answered, strict=True)
        return {"im_quality": [head.logit(pair_features(*row)) for row in rows]}


def pair_features(
    instruction: str, response: str, asked: NDArray[np.float32], answered: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What the head sees of a pair.

    Args:
        instruction: The text.
        response: The text.
        asked: The instruction's unit vector, shape (width,).
        answered: The response's unit vector, shape (width,).

    Returns:
        Shape (3 * width + 1 + surface features,): the response's vector, the product, the absolute difference,
        the cosine, and ``surface(instruction, response)``.
    """
    question, answer = asked.astype(np.float64), answered.astype(np.float64)
    product = question * answer
    cosine = product.sum(keepdims=True)
    return np.concatenate([answer, product, np.abs(question - answer), cosine, surface(instruction, response)])


@lru_cache(maxsize=1)
def load_head() -> Head:
    """The shipped weights, read once per process.

    Raises:
        IndicatorError: The file is not the one that the training record names.
    """
    from safetensors.numpy import load

    data, expected = WEIGHTS.read_bytes(), load_record()["weights_sha256"]
    if (digest := sha256(data).hexdigest()) != expected:
        raise IndicatorError(
            f"{WEIGHTS.name} has sha256 {digest}, its training record names {expected}; "
            "reinstall im-datasets, or train both anew: python examples/quality/train.py --data DIR"
        )
    return unpack(load(data))


def unpack(tensors: dict[str, NDArray[Any]]) -> Head:
    """The head from the tensors as stored.

    Args:
        tensors: ``vectors``, int8, shape (units, 3, width), and what one step of it is worth: ``steps``, float32,
            shape (units, 3); ``rest``, float16, shape (units, 1 + surface features): cosine and surface;
            ``hidden_bias``, ``output`` and ``output_bias``, float32.
    """
    vectors = tensors["vectors"].astype(np.float64) * tensors["steps"].astype(np.float64)[..., None]
    hidden = np.concatenate([vectors.reshape(len(vectors), -1), tensors["rest"].astype(np.float64)], axis=1)
    bias, output, output_bias = (tensors[name].astype(np.float64) for name in ("hidden_bias", "output", "output_bias"))
    return Head(hidden, bias, output, output_bias)


def load_record() -> dict[str, Any]:
    """The training record: data, versions, figures and limits."""
    import json

    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record
