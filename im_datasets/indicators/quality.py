"""Quality: is the response a whole answer to its instruction, or a degraded one?

A head of two layers (the mean of three, merged) over the frozen sentence vectors of a pair and what can be read off
its surface. It was trained to tell a row's own response from spoiled ones (another row's, cut, scrambled, looped, an
echo, an empty phrase, another language), never on human preferences, and it is not part of the paper's method. The
training script, and what each figure means, stand in ``examples/quality``; the figures in ``quality.json`` beside
this file. A second head, over the vectors of the static embedder, has its own figures in ``quality_static.json``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.quality_features import text_features
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import EMBEDDED
from im_datasets.models.static_embedder import STATIC

WEIGHTS = Path(__file__).with_name("quality.safetensors")
RECORD = Path(__file__).with_name("quality.json")
STATIC_WEIGHTS = Path(__file__).with_name("quality_static.safetensors")
STATIC_RECORD = Path(__file__).with_name("quality_static.json")

PROBE = ("Name three fruits that grow on trees.", "The quick brown fox jumps over 13 lazy dogs!", "花は美しい。")
"""Texts whose vectors tell whether a static model is the one that its head was trained on."""

PROBE_TOLERANCE = 5e-3
"""How far a number of such a vector may be from what it was: distilled on another machine, it is rounded otherwise."""


def head_files(model: str = EMBEDDED) -> tuple[Path, Path]:
    """The weights and the training record of the head for an embedder's model."""
    return (STATIC_WEIGHTS, STATIC_RECORD) if model == STATIC else (WEIGHTS, RECORD)


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
    """Writes ``im_quality``: a whole, matching answer (high) or a degraded one (low), as an unbounded logit.

    Reads the first 256 tokens of instruction and response for their meaning, and all of both for their surface.
    Says nothing about truth: a wrong fact, well put, scores as high as a right one.

    Attributes:
        embedder: The embedded model or the static one, in float32 at its full length: there is a head for the
            vectors of each. Their logits are not comparable.

    Raises:
        IndicatorError: The embedder is another than a head was trained on; while scoring, the static model of this
            machine is.

    Example:
        >>> quality = Quality()
        >>> batch = {"instruction": ["Name a fruit."] * 2, "output": ["An apple.", "Name a fruit."]}
        >>> good, echo = quality(batch)["im_quality"]
        >>> good > echo
        True
    """

    version: ClassVar[str] = "2"

    embedder: Embedder = field(default_factory=Embedder)

    def __post_init__(self) -> None:
        trained = self.embedder.model in (EMBEDDED, STATIC)
        how = (self.embedder.kind, self.embedder.dtype, self.embedder.max_tokens)
        if not trained or how != ("sentence", "float32", None):
            raise IndicatorError(
                f"Quality knows only the vectors of Embedder(model={EMBEDDED!r}, dtype='float32', max_tokens=None) and "
                f"of model={STATIC!r}, not those of {self.embedder}; pass one of these, or drop Quality from the rule"
            )

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_quality",)

    @override
    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
        return [*instructions, *responses]

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> dict[str, list[float]]:
        head = load_head(self.embedder.model)
        vectors = self.embedder.embed(self.embeds(instructions, responses))
        rows = zip(instructions, responses, vectors[: len(instructions)], vectors[len(instructions) :], strict=True)
        return {"im_quality": [head.logit(pair_features(*row)) for row in rows]}


def pair_features(
    instruction: str, response: str, question: NDArray[np.float32], answer: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What the head sees of a pair.

    Args:
        instruction: The text.
        response: The text.
        question: The instruction's unit vector, shape (width,).
        answer: The response's unit vector, shape (width,).

    Returns:
        Shape (3 * width + 1 + surface features,): the response's vector, the product, the absolute difference,
        the cosine, and ``text_features(instruction, response)``.
    """
    left, right = question.astype(np.float64), answer.astype(np.float64)
    product = left * right
    cosine = product.sum(keepdims=True)
    return np.concatenate([right, product, np.abs(left - right), cosine, text_features(instruction, response)])


# Two heads ship, and a run may ask for either.
@lru_cache(maxsize=2)
def load_head(model: str = EMBEDDED) -> Head:
    """The shipped weights, read once per process.

    Args:
        model: The embedder's model: ``"embedded"`` or ``"static"``.

    Raises:
        IndicatorError: No head was trained for that model, the file is not the one that the training record names, or
            the static model here gives other vectors than that of the training.
    """
    from safetensors.numpy import load

    file = head_files(model)[0]
    if not file.is_file():
        raise IndicatorError(
            f"no head of Quality ships for the {model} embedder; use the embedded one, or train a head: "
            f"python examples/quality/train.py --data DIR --embedder {model}"
        )
    # Weights and figures are of one training, or the card tells of another head.
    data, expected = file.read_bytes(), load_record(model)["weights_sha256"]
    if (digest := sha256(data).hexdigest()) != expected:
        raise IndicatorError(
            f"{file.name} has sha256 {digest}, its training record names {expected}; "
            "reinstall im-datasets, or train both anew: python examples/quality/train.py --data DIR"
        )
    tensors = load(data)
    # A static model is distilled on each machine, and its head knows one result of that.
    if "probe" in tensors:
        _check_probe(tensors["probe"], model)
    return unpack(tensors)


def _check_probe(probe: NDArray[Any], model: str) -> None:
    off = float(np.abs(Embedder(model=model).embed(PROBE) - probe.astype(np.float32)).max())
    if off > PROBE_TOLERANCE:
        raise IndicatorError(
            f"the {model} embedder here gives other vectors (off by {off:.2g}) than the one that its head of Quality "
            "was trained on; use the embedded one, or train the head anew: "
            f"python examples/quality/train.py --data DIR --embedder {model}"
        )


def unpack(tensors: dict[str, NDArray[Any]]) -> Head:
    """The head from the tensors as stored.

    Args:
        tensors: ``vectors``, int8, shape (units, 3, width), and what one step of it is worth: ``steps``, float32,
            shape (units, 3); ``rest``, float16, shape (units, 1 + surface features): cosine and surface;
            ``hidden_bias``, ``output`` and ``output_bias``, float32. Others are left alone.
    """
    vectors = tensors["vectors"].astype(np.float64) * tensors["steps"].astype(np.float64)[..., None]
    hidden = np.concatenate([vectors.reshape(len(vectors), -1), tensors["rest"].astype(np.float64)], axis=1)
    bias, output, output_bias = (tensors[name].astype(np.float64) for name in ("hidden_bias", "output", "output_bias"))
    return Head(hidden, bias, output, output_bias)


def load_record(model: str = EMBEDDED) -> dict[str, Any]:
    """The training record: data, versions, figures and limits."""
    import json

    record: dict[str, Any] = json.loads(head_files(model)[1].read_text(encoding="utf-8"))
    return record
