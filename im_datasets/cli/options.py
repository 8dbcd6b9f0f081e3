"""What the commands that finetune have in common: their options, and the experiment that these stand for."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from im_datasets.common.errors import CalibrationError

if TYPE_CHECKING:
    from im_datasets.calibration.experiments.experiment import Experiment
    from im_datasets.calibration.experiments.finetuning import Training
    from im_datasets.calibration.experiments.pool import Pool
    from im_datasets.calibration.search import Objective
    from im_datasets.indicators import Indicator


@dataclass(frozen=True)
class Setup:
    """The options; each field is one, its default the command's."""

    base_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The causal model to finetune: a Hub id or a folder.")
    ] = None
    base_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the base model.")] = None
    evaluation: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DATA", help="Instructions with reference responses to measure on; repeatable."),
    ] = None
    evaluation_limit: Annotated[int | None, typer.Option(help="Measure on at most so many examples of each.")] = None
    limit: Annotated[int | None, typer.Option(help="Read at most this many rows of each dataset.")] = None
    epochs: Annotated[float, typer.Option(help="Passes over a subset.")] = 3.0
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-5
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 64
    micro_batch_size: Annotated[int, typer.Option(help="Rows in memory at a time.")] = 8
    max_tokens: Annotated[int, typer.Option(help="Tokens of a row, in training and evaluation.")] = 1024
    lora: Annotated[bool, typer.Option("--lora", help="Train a low-rank addition instead of all weights.")] = False
    lora_rank: Annotated[int, typer.Option(help="Rank of the addition.")] = 16
    bf16: Annotated[
        bool | None,
        typer.Option(help="Compute in bfloat16, weights in float32; else on a CUDA card that has it."),
    ] = None
    group_by_length: Annotated[
        bool, typer.Option("--group-by-length", help="Rows of like length meet in a step: faster, less random.")
    ] = False
    template: Annotated[
        str | None, typer.Option(help="alpaca, chat, plain or a text with {instruction}; else the model's own.")
    ] = None
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; a process trains on the first GPU that it sees.")
    ] = None
    reward_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score im_reward with this model.")] = None
    unieval_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score UniEval's columns too.")] = None
    perplexity_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score im_perplexity too.")] = None
    ifd_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Score im_ifd too.")] = None
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep every finetuned model in models/.")] = False

    @property
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

    def pool(self, data: Sequence[str], out: Path, rule: str = "embedded") -> "Pool":
        """The candidates, scored by the rule's indicators and those whose models were named.

        Raises:
            CalibrationError: No candidates.
            SourceError: A dataset cannot be found or read.
            ModelError: A model cannot be had.
        """
        from im_datasets.calibration.experiments.pool import load_pool

        return load_pool(data, out, rule=rule, indicators=self._indicators(rule), limit=self.limit)

    def experiment(self, data: Sequence[str], out: Path, rule: str = "embedded") -> "Experiment":
        """The experiment.

        Raises:
            CalibrationError: Something that it needs was not named, or does not fit.
            SourceError: A dataset cannot be found or read.
            ModelError: A model cannot be had.
        """
        from im_datasets.calibration.experiments.evaluation import load_evaluations
        from im_datasets.calibration.experiments.experiment import Experiment

        if not data or self.base_model is None:
            raise CalibrationError("finetuning needs candidate DATA and --base-model MODEL")
        training, revision = self.training, self.base_revision
        sets = load_evaluations(self.evaluation or [], limit=self.evaluation_limit)
        pool = self.pool(data, out, rule)
        return Experiment.of(
            pool, sets, self.base_model, training, out, revision=revision, keep_models=self.keep_models
        )

    def _indicators(self, rule: str) -> "list[Indicator]":
        from im_datasets import indicators
        from im_datasets.rules.instruct_mining import settings_of
        from im_datasets.rules.linear import LinearRule

        known = LinearRule.load(rule)
        models = {
            "Reward": self.reward_model,
            "UniEval": self.unieval_model,
            "Perplexity": self.perplexity_model,
            "IFD": self.ifd_model,
        }
        run = {} if self.device is None else {"device": self.device}
        return [
            getattr(indicators, name)(**settings_of(known, name, model=model, **run))
            for name, model in models.items()
            if model
        ]


def with_setup(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes a ``setup`` the options of ``Setup``, as typer reads them."""
    own = [each for each in signature(command).parameters.values() if each.name != "setup"]
    options = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Setup)
    ]
    names = [option.name for option in options]

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            command(setup=Setup(**{name: given.pop(name) for name in names}), **given)
        except KeyboardInterrupt:
            typer.echo("\nim-datasets: interrupted; finished runs are kept, and the same command goes on", err=True)
            raise typer.Exit(130) from None

    parameters = [*(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own), *options]
    run.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def load_objective(name: str) -> "Objective":
    """A function of the user's own, by ``module:function``; modules of the working folder count.

    Raises:
        CalibrationError: There is none.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - what Python itself puts there
    try:
        found: Objective = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise CalibrationError(f"no objective {name!r} ({error}); write it as module:function") from error
    finally:
        sys.path.pop(0)
    return found
