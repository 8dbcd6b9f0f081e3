"""What all indicators with a model of their own share: its settings, its record, and the way to the batch runner."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Indicator
from im_datasets.models.batching import Computed
from im_datasets.models.checkpoints import Checkpoint, Kind
from im_datasets.models.hub_models import shown_name
from im_datasets.models.inference import BatchRunner, compute

FEWEST_TOKENS = 16
"""The least that ``max_tokens`` may be: with fewer no pair is left to score."""


@dataclass(frozen=True, kw_only=True)
class ModelIndicator(Indicator):
    """An indicator that scores with a pretrained model.

    Attributes:
        columns: Where instruction and response stand; None finds them by the names of the columns.
        model: A model id of the Hub, or a local folder; of a causal model also a GGUF file, or ``"embedded"``.
        revision: Branch, tag or commit of a Hub model; None is the default branch.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; None is float32 on a CPU, bfloat16 or float16 on a GPU.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes an accelerator where there is one.
        max_tokens: Tokens read of an input; None is the model's own limit.
        trust_remote_code: Whether code in the model's repository may run.
        compile: Whether the model goes through ``torch.compile``.

    Raises:
        IndicatorError: ``max_tokens`` leaves no room for text.
    """

    kind: ClassVar[Kind]
    """What the model is opened as."""

    model: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    max_tokens: int | None = None
    trust_remote_code: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < FEWEST_TOKENS:
            raise IndicatorError(f"max_tokens={self.max_tokens} leaves no room for text; pass {FEWEST_TOKENS} or more")

    @property
    def checkpoint(self) -> Checkpoint:
        """The model and how it runs."""
        return Checkpoint(
            self.kind, self.model, self.revision, self.dtype, self.device, self.trust_remote_code, self.compile
        )

    @abstractmethod
    def engine(self) -> BatchRunner:
        """How items become values with the loaded model.

        Raises:
            ModelError: The model cannot be had, is of another kind, or lacks weights.
        """

    @abstractmethod
    def space(self) -> dict[str, Any]:
        """The settings that the values of items depend on beside the model, as plain data."""

    @abstractmethod
    @override
    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]: ...

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        return self.score_turns(Pairs.of(instructions, responses))

    def compute(self, items: Sequence[Any]) -> Computed:
        """The values of hashable items, in their order, each distinct one computed once and kept in the store."""
        return compute(items, space=self.whole_space(), load=self.engine)

    def whole_space(self) -> dict[str, Any]:
        """All that the values of items depend on, the model included, as plain data.

        Raises:
            ModelError: The model cannot be had.
        """
        checkpoint = self.checkpoint.resolve()
        # The store finds values by exactly these: whatever is added makes all that was kept unknown.
        return {
            "model": checkpoint.weights(),
            "kind": checkpoint.kind,
            "dtype": checkpoint.dtype,
            "max_tokens": self.max_tokens,
            **self.space(),
        }

    def items(self, pairs: Pairs) -> Sequence[Any]:  # noqa: ARG002
        """The items whose values score pairs, for who computes them with those of others; by default none are told.

        Args:
            pairs: n pairs without a reason against them.
        """
        return ()

    def describe(self) -> dict[str, Any]:
        """Model id, revision, dtype and device as they are resolved here, for a record.

        Raises:
            ModelError: The model cannot be had.
        """
        return self.checkpoint.describe()

    @override
    def settings(self) -> dict[str, Any]:
        # Records are published: where a folder lies on this machine is nobody's business.
        return super().settings() | {"model": shown_name(self.model)}


def first_visitors(indicators: Sequence[Indicator]) -> list[Indicator]:
    """Those that no other with the same model and settings stands before: the runs of a model that are to come.

    Raises:
        ModelError: A model cannot be had.
    """
    first: list[tuple[ModelIndicator, dict[str, Any]]] = []
    for indicator in indicators:
        if isinstance(indicator, ModelIndicator):
            space = indicator.whole_space()
            if all(space != other for _, other in first):
                first.append((indicator, space))
    return [indicator for indicator, _ in first]


def compute_together(indicator: Indicator, others: Sequence[Indicator], pairs: Pairs) -> None:
    """Compute what an indicator and others want of its model in one visit to it; for use inside ``sharing_values``.

    Args:
        indicator: Whose model is visited; one that tells of no items visits it by itself, later.
        others: Those with another model, or with settings on which values depend, are passed over.
        pairs: Of which those that cannot be scored are passed over.

    Raises:
        ModelError: The model cannot be had.
    """
    _, scorable = pairs.scorable()
    if not isinstance(indicator, ModelIndicator) or not (items := list(indicator.items(scorable))):
        return
    space = indicator.whole_space()
    for other in others:
        if other is not indicator and isinstance(other, ModelIndicator) and (more := other.items(scorable)):
            items += more if other.whole_space() == space else ()
    indicator.compute(items)
