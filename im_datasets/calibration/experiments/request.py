"""What an experiment is asked in plain values, as a command line has them, and the objects that these stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from im_datasets.common.errors import CalibrationError

if TYPE_CHECKING:
    from im_datasets.calibration.experiments.experiment import Experiment
    from im_datasets.calibration.experiments.finetuning import Training
    from im_datasets.calibration.experiments.pool import Pool
    from im_datasets.indicators.base import Indicator


@dataclass(frozen=True)
class ExperimentRequest:
    """A base model, how it is finetuned, what it is measured on, and which columns are scored beside the rule's.

    Attributes:
        base_model: The causal model to finetune: a Hub id or a folder.
        base_revision: Branch, tag or commit of the base model.
        evaluation: Instructions with reference responses to measure on; repeatable.
        evaluation_limit: Measure on at most so many examples of each.
        limit: Read at most this many rows of each dataset.
        epochs: Passes over a subset.
        learning_rate: Peak learning rate.
        batch_size: Rows per step.
        micro_batch_size: Rows in memory at a time.
        max_tokens: Tokens of a row, in training and evaluation.
        lora: Train a low-rank addition instead of all weights.
        lora_rank: Rank of the addition.
        bf16: Compute in bfloat16, weights in float32; else on a CUDA card that has it.
        group_by_length: Rows of like length meet in a step: faster, less random.
        template: alpaca, chat, plain or a text with {instruction}; else the model's own.
        device: cpu, cuda or mps; a process trains on the first GPU that it sees.
        reward_model: Score im_reward with this model.
        unieval_model: Score UniEval's columns too.
        perplexity_model: Score im_perplexity too.
        ifd_model: Score im_ifd too.
        rifd_model: Score im_rifd too.
        keep_models: Keep every finetuned model in models/.
    """

    base_model: str | None = None
    base_revision: str | None = None
    evaluation: list[str] | None = None
    evaluation_limit: int | None = None
    limit: int | None = None
    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 64
    micro_batch_size: int = 8
    max_tokens: int = 1024
    lora: bool = False
    lora_rank: int = 16
    bf16: bool | None = None
    group_by_length: bool = False
    template: str | None = None
    device: str | None = None
    reward_model: str | None = None
    unieval_model: str | None = None
    perplexity_model: str | None = None
    ifd_model: str | None = None
    rifd_model: str | None = None
    keep_models: bool = False

    def training(self) -> "Training":
        """How each subset is trained on.

        Raises:
            CalibrationError: A number is out of range.
        """
        from im_datasets.calibration.experiments.finetuning import Training

        return Training(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            max_tokens=self.max_tokens,
            method="lora" if self.lora else "full",
            lora_rank=self.lora_rank,
            template=self.template,
            bf16=self.bf16,
            group_by_length=self.group_by_length,
            device=self.device,
        )

    def pool(self, data: Sequence[str], folder: str | Path, rule: str = "embedded") -> "Pool":
        """The candidates, scored by the rule's indicators and those whose models were named.

        Args:
            data: Candidate datasets, as ``load_pool`` takes them.
            folder: Where scores are kept.
            rule: Name or path of the rule whose indicators are computed.

        Raises:
            CalibrationError: No candidates.
            SourceError: A dataset cannot be found or read.
            ModelError: A model cannot be had.
        """
        from im_datasets.calibration.experiments.pool import load_pool

        return load_pool(data, folder, rule=rule, indicators=self._indicators(rule), limit=self.limit)

    def experiment(self, data: Sequence[str], folder: str | Path, rule: str = "embedded") -> "Experiment":
        """The experiment on candidates as ``pool`` takes them; its runs are kept in the folder too.

        Raises:
            CalibrationError: Something that it needs was not named, or does not fit.
            SourceError: A dataset cannot be found or read.
            ModelError: A model cannot be had.
        """
        from im_datasets.calibration.experiments.evaluation import load_evaluations
        from im_datasets.calibration.experiments.experiment import Experiment

        if not data or self.base_model is None:
            raise CalibrationError("finetuning needs candidate DATA and --base-model MODEL")
        # Settings and evaluation sets first: they fail at once, while scoring a pool takes long.
        training = self.training()
        evaluations = load_evaluations(self.evaluation or [], limit=self.evaluation_limit)
        return Experiment.of(
            self.pool(data, folder, rule),
            evaluations,
            self.base_model,
            training,
            folder,
            revision=self.base_revision,
            keep_models=self.keep_models,
        )

    def _indicators(self, rule: str) -> "list[Indicator]":
        """Those whose models were named, with the rule's settings of them."""
        from im_datasets import indicators
        from im_datasets.rules.instruct_mining import settings_of
        from im_datasets.rules.linear import LinearRule

        fitted = LinearRule.load(rule)
        models = {
            "Reward": self.reward_model,
            "UniEval": self.unieval_model,
            "Perplexity": self.perplexity_model,
            "IFD": self.ifd_model,
            "ReversedIFD": self.rifd_model,
        }
        device = {} if self.device is None else {"device": self.device}
        return [
            getattr(indicators, name)(**settings_of(fitted, name, model=model, **device))
            for name, model in models.items()
            if model
        ]
