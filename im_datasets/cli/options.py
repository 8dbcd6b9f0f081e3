"""Groups of options that commands share, made from what the package is asked; here is added what only words can say.

A group is the frozen dataclass of a request with its panel in the help; its ``Attributes`` are the help's texts. Heavy
modules are imported inside the methods, so that ``--help`` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from im_datasets.calibration.experiments.request import ExperimentRequest
from im_datasets.common.errors import CalibrationError, IndicatorError, SelectionError
from im_datasets.data.columns import Columns
from im_datasets.data.request import SourceRequest
from im_datasets.scoring.request import RunRequest, ScoringRequest
from im_datasets.selection.request import SelectionRequest

if TYPE_CHECKING:
    from im_datasets.calibration.search import Objective
    from im_datasets.indicators import Indicator

DATA, SELECTION, MODELS, FINETUNING, RUNNING, OUTPUT = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Data", "Selection", "Models", "Finetuning", "Running", "Output"))
)
"""The panels of a command's help, in the order in which they stand."""

Data = Annotated[
    str,
    Parameter(
        help="A JSON, JSONL, CSV or Parquet file, a glob or folder of them, a folder saved by datasets, or the id of a "
        "Hub dataset."
    ),
]
Out = Annotated[Path, Parameter(group=OUTPUT, help="Folder to write.")]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, help="Replace an older result.")]
Json = Annotated[bool, Parameter(group=OUTPUT, help="Print the outcome as JSON and show no progress.")]
License = Annotated[str | None, Parameter(group=OUTPUT, help="Licence of the rows, for the card.")]
Language = Annotated[
    list[str] | None, Parameter(group=OUTPUT, help="Language code of the rows, for the card; repeatable.")
]
Candidates = Annotated[
    str, Parameter(required=True, help="Candidate datasets, each anything that mine reads; NAME=DATA names one.")
]
RuleName = Annotated[
    str, Parameter(group=MODELS, help="A shipped rule's name (see: im-datasets rules) or the path of a rule's JSON.")
]
Model = Annotated[str | None, Parameter(metavar="MODEL")]
# A text may begin as an option does: a list in a template, a dash in a title.
Text = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
Seeds = Annotated[int, Parameter(validator=Number(gte=1), help="Trainings of each, from seed 0 on.")]


def _word(convert: Callable[[str], Any], metavar: str, text: str | None = None) -> Parameter:
    """An option of one word, which a function reads; the last one counts where it comes twice."""
    return Parameter(
        converter=lambda _, tokens: convert(tokens[-1].value),
        n_tokens=1,
        accepts_keys=False,
        metavar=metavar,
        help=text,
    )


def _quota(text: str) -> tuple[str, int]:
    column, sign, quota = text.rpartition("=")
    if not (sign and column and quota.isdecimal()):
        raise SelectionError(f"--per-group takes COLUMN=QUOTA with a whole number, got {text!r}")
    return column, int(quota)


def _evaluation_texts(data: str) -> list[str]:
    from im_datasets.selection.contamination import evaluation_texts

    return evaluation_texts(data)


Evaluation = Annotated[list[str] | None, _word(_evaluation_texts, "DATA")]


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class DataOptions(SourceRequest):
    """Which rows to read, and where their texts stand.

    Attributes:
        every_turn: Score every assistant turn as a row of its own.
    """

    data: Annotated[object, Parameter(parse=False)] = None  # the command's argument
    columns: Annotated[
        Columns | None,
        _word(Columns.parse, "instruction=…,response=…", "Which columns hold what, where it cannot be told."),
    ] = None
    every_turn: bool = False


@Parameter(name="*", group=SELECTION)
@dataclass(frozen=True, kw_only=True)
class SelectionOptions(SelectionRequest):
    """Which rows to keep; exactly one of --top-k, --fraction and --threshold says how many."""

    per_group: Annotated[
        tuple[str, int] | None, _word(_quota, "COLUMN=QUOTA", "Keep at most QUOTA rows per value of COLUMN.")
    ] = None
    exclude_contaminated: Annotated[
        list[str] | None,
        _word(_evaluation_texts, "DATA", "Drop rows that repeat an instruction of this evaluation set."),
    ] = None
    targets: Annotated[
        str | None,
        Parameter(
            metavar="DATA", help="Choose the rows nearest to these examples of a job, by turns, instead of by score."
        ),
    ] = None
    target_model: Annotated[
        Model, Parameter(help="Tell nearness to the targets by this causal model (RDS+), else by the sentence encoder.")
    ] = None


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The rule, and the models that its indicators run.

    Attributes:
        reward_model: Reward model: a Hub id or a folder, instead of the rule's.
        unieval_model: UniEval model: a Hub id or a folder, instead of the rule's.
        perplexity_model: Score im_perplexity too, with this causal model.
        ifd_model: Score im_ifd too, with this causal model.
        rifd_model: Score im_rifd too, with this causal model.
        embedder: Sentence encoder: embedded (the default), static (very fast, less exact), a Hub id or a folder.
        device: cpu, cuda, cuda:1 or mps, for these models.
        dtype: float32, bfloat16 or float16, for these models but UniEval.
    """

    rule: RuleName = "embedded"
    reward_model: Model = None
    unieval_model: Model = None
    perplexity_model: Model = None
    ifd_model: Model = None
    rifd_model: Model = None
    embedder: Model = None
    device: str | None = None
    dtype: str | None = None

    def request(self, data: str, source: DataOptions) -> ScoringRequest:
        """What is scored, and by what.

        Raises:
            ImDatasetsError: As ``indicators``; or the data has no name.
        """
        return ScoringRequest(
            replace(source, data=data), self.rule, self.indicators(), source.columns, source.every_turn
        )

    def indicators(self) -> "list[Indicator]":
        """The indicators whose models were named, and the rule's own where a device or dtype was.

        Raises:
            RuleError: The rule is unknown, or one of its models is not here.
            ModelError: The device or dtype is unknown or not available here.
            IndicatorError: None of these indicators takes the device or dtype.
        """
        from im_datasets import indicators
        from im_datasets.models.devices import choose_device, choose_dtype
        from im_datasets.models.hub_models import EMBEDDED
        from im_datasets.rules.instruct_mining import settings_of
        from im_datasets.rules.linear import LinearRule

        rule = LinearRule.load(self.rule)
        how = {name: value for name, value in (("device", self.device), ("dtype", self.dtype)) if value}
        if how:
            # Refused here, as models are opened only when the rows are read.
            choose_dtype(self.dtype, choose_device(self.device))
        named = {
            "Reward": self.reward_model,
            "UniEval": self.unieval_model,
            "Perplexity": self.perplexity_model,
            "IFD": self.ifd_model,
            "ReversedIFD": self.rifd_model,
        }
        names = [name for name, model in named.items() if model or (how and name in rule.indicators)]
        if how and not names:
            # What embeds is left, and takes a device alone.
            if self.dtype or "im_quality" not in rule.columns:
                option = f"--dtype {self.dtype}" if self.dtype else f"--device {self.device}"
                raise IndicatorError(
                    f"no indicator of this run takes {option}; leave it out, or name a model to run with it"
                )
            return self._embedding(self.embedder or EMBEDDED, self.device)
        models = []
        for name in names:
            settings = {**how, "model": named[name]} if named[name] else dict(how)
            if name == "UniEval":
                # It stays in float32: v3 subtracts two of its nearly equal scores.
                settings.pop("dtype", None)
            models.append(getattr(indicators, name)(**settings_of(rule, name, **settings)))
        return models + self._embedding(self.embedder, None) if self.embedder else models

    def _embedding(self, model: str, device: str | None) -> "list[Indicator]":
        """The rule's indicators that embed, with that encoder; where it has none, one that only describes.

        What describes the rows takes the encoder of these, and so does the check for near-duplicates.
        """
        from im_datasets.indicators import Similarity
        from im_datasets.indicators.settings import embedder_of
        from im_datasets.models.embedder import Embedder
        from im_datasets.rules.instruct_mining import InstructMining

        encoder = Embedder(model=model, device=device)
        embedding = [each for each in InstructMining(self.rule).indicators if embedder_of(each)]
        return [replace(each, embedder=encoder) for each in embedding] or [  # type: ignore[call-arg]
            Similarity(embedder=encoder)
        ]


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the run goes about its work.

    Attributes:
        cache: Keep model outputs between runs, and take them from there.
        workers: Processes that score side by side; on GPUs, as many as there are GPUs. Default: 1, on Ray what it has.
        engine: Score on this machine (local), or on a Ray cluster (ray).
        address: Of the Ray cluster (auto: the one of this node); else one is started here.
        resume: Go on with unfinished work of the same request, or throw it away.
        log_json: Add a JSON line per event to this file, or to standard error (-).
    """

    cache: Annotated[bool, Parameter(negative="--no-cache")] = True
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    engine: Annotated[str, Parameter(metavar="local|ray")] = "local"
    address: str | None = None
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True
    log_json: Annotated[str | None, Parameter(metavar="FILE|-", allow_leading_hyphen=True)] = None

    def request(self, *, overwrite: bool, progress: bool = True) -> RunRequest:
        """What is asked of the run.

        Raises:
            EngineError: There is no such engine, or it takes no address.
            MissingExtraError: Ray is asked for and not installed.
        """
        from im_datasets.scoring.engines.choose import choose_engine

        engine = choose_engine(self.engine, self.workers, self.address)
        return RunRequest(
            overwrite, command_line(), progress, self.cache, self.resume, engine=engine, log=self.log_json
        )


@Parameter(name="*", group=FINETUNING)
@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(ExperimentRequest):
    """What is finetuned, how, and what it is measured on."""

    evaluation: Annotated[list[str] | None, Parameter(metavar="[NAME=]DATA")] = None
    bf16: Annotated[bool | None, Parameter(negative="--no-bf16")] = None
    template: Text = None


def command_line() -> list[str]:
    """The command line, with absolute paths cut to their last part: it goes on cards."""
    return ["im-datasets", *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])]


def load_objective(name: str) -> "Objective":
    """A function of the user's own, by ``module:function``; modules of the working folder count.

    Raises:
        CalibrationError: There is none.
    """
    module, _, function = name.partition(":")
    # A console script has its own folder there, not the one that it is called in.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - what Python itself puts there
    try:
        objective: Objective = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise CalibrationError(f"no objective {name!r} ({error}); write it as module:function") from error
    finally:
        sys.path.pop(0)
    return objective
