"""What every module of ``metrics/`` is tested with: rows of ours, settings, and the batch function it wraps."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from im_datasets import InstructMining
from im_datasets.indicators import (
    IFD,
    MTLD,
    KNNDistance,
    Length,
    Perplexity,
    Quality,
    ReversedIFD,
    Reward,
    Similarity,
    TargetSimilarity,
    UniEval,
)

ROOT = Path(__file__).resolve().parents[2]

INSTRUCTIONS = [
    "Name a fruit.",
    "What does a mango taste like?",
    "Count to three.",
    "",
    "Which colour is the sky?",
    [
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Again."},
    ],
    "When does the train leave?",
]
RESPONSES = [
    "An apple.",
    "A ripe mango tastes sweet, with a hint of pine.",
    "One, two, three.",
    "There was no question.",
    "",
    "Hello again, and again, and again.",
    "When does the train leave?",
]
UNSCORED = 2


@dataclass(frozen=True)
class Sample:
    """A module's settings, and what computes the same.

    Attributes:
        batch_function: The indicator's class, or the rule's.
        settings: Given to both.
        columns: Reported ones.
        unscored: How many of the rows above have no value.
        model: Which of the small seeded models stands in for the module's own; none where it needs none.
    """

    batch_function: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    unscored: int = UNSCORED
    model: str = ""

    def on(self, models: dict[str, str]) -> Self:
        """The sample with the stand-in among its settings."""
        return replace(self, settings={**self.settings, "model": models[self.model]}) if self.model else self

    def expected(self, dataset: Any) -> dict[str, list[float]]:
        """The batch function's own values."""
        function = self.batch_function(**self.settings)
        if hasattr(function, "fit"):
            function = function.fit(dataset)
        values = function(dataset[:])
        return {name: values[name] for name in self.columns}


SAMPLES = {
    "im_ifd": Sample(IFD, {"template": "plain"}, ("im_ifd",), model="causal"),
    "im_knn": Sample(KNNDistance, {"k": 2}, ("im_knn_2",)),
    "im_length": Sample(Length, {}, ("im_input_length", "im_output_length")),
    "im_log_loss": Sample(InstructMining, {"rule": "embedded"}, ("im_log_loss",)),
    # The module reads no instruction, so the row without one is scored.
    "im_mtld": Sample(MTLD, {"threshold": 0.6}, ("im_mtld",), unscored=1),
    "im_perplexity": Sample(Perplexity, {"condition_on_instruction": False}, ("im_perplexity",), model="causal"),
    "im_quality": Sample(Quality, {}, ("im_quality",)),
    "im_reward": Sample(Reward, {"max_tokens": 64}, ("im_reward",), model="reward"),
    "im_rifd": Sample(ReversedIFD, {}, ("im_rifd",), model="causal"),
    "im_similarity": Sample(Similarity, {}, ("im_similarity",)),
    "im_target_similarity": Sample(
        TargetSimilarity, {"targets": [("Name a fruit.", "An apple."), ("Say hi.", "Hi!")]}, ("im_target_similarity",)
    ),
    "im_unieval": Sample(UniEval, {}, ("im_naturalness", "im_coherence", "im_understandability"), model="unieval"),
}
