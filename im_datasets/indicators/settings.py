"""An indicator ↔ plain data: what it depends on, its settings, and making again what a record or a rule states.

A record may come from a stranger: it may name classes of this package and models of the Hub, and nothing of it is run
or opened beyond that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import TypeIs

from im_datasets import indicators as catalogue
from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.common.untrusted import leads_outside, shown
from im_datasets.data.source import HUB_ID
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.function import FunctionIndicator
from im_datasets.indicators.knn.indicator import KNNDistance
from im_datasets.indicators.model import ModelIndicator
from im_datasets.indicators.target.indicator import TargetSimilarity
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import EMBEDDED, is_local, local_digest
from im_datasets.models.static_embedder import STATIC

ENTRY_POINTS = "im_datasets.indicators"
"""The group in which other packages name their indicators."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def compares_rows(indicator: Indicator) -> TypeIs[KNNDistance]:
    """Whether a value depends on all other rows: its vectors are collected, and searched once all are there."""
    return isinstance(indicator, KNNDistance)


def runs_model(indicator: Indicator) -> TypeIs[ModelIndicator]:
    """Whether it runs a model of its own, beside the encoder that indicators share."""
    return isinstance(indicator, ModelIndicator)


def embedder_of(indicator: Indicator) -> Embedder | None:
    """The sentence encoder that ``embeds`` is for, a field called ``embedder``; None where there is none."""
    embedder = getattr(indicator, "embedder", None)
    return embedder if isinstance(embedder, Embedder) else None


def shared_embedder(indicators: Sequence[Indicator]) -> Embedder:
    """The sentence encoder that a run's indicators use, the default one where none does.

    What describes the rows takes it too, and near-duplicates are told by the same vectors; those of a causal model are
    all alike.
    """
    embedders = filter(None, map(embedder_of, indicators))
    return next((embedder for embedder in embedders if embedder.kind == "sentence"), Embedder())


def describe_model(indicator: Indicator) -> dict[str, Any] | None:
    """Its model as resolved here, for a record: id, revision, dtype and device; None where it has none.

    Raises:
        ModelError: The model cannot be had.
    """
    model = indicator if runs_model(indicator) else embedder_of(indicator)
    return model.describe() if model else None


def weights_of(indicator: Indicator) -> dict[str, Any] | None:
    """Which weights it runs with, found without loading them; None where it has no model.

    A folder or a branch may hold others the next time.

    Raises:
        ModelError: The model cannot be had.
    """
    if runs_model(indicator):
        return indicator.describe()
    embedder = embedder_of(indicator)
    return {"embedder": embedder.weights()} if embedder else None


def identity(indicator: Indicator | Embedder) -> dict[str, Any]:
    """All that values depend on, as plain data: class and settings, a model by its weights wherever they lie.

    Raises:
        ModelError: A model cannot be had.
    """
    values = {field.name: getattr(indicator, field.name) for field in fields(indicator)}
    plain: dict[str, Any] = {name: identity(v) if isinstance(v, Embedder) else repr(v) for name, v in values.items()}
    if isinstance(indicator, Embedder):
        plain |= {"model": indicator.weights(), "revision": None}
    elif runs_model(indicator):
        checkpoint = indicator.checkpoint.resolve()
        plain |= {"model": checkpoint.weights(), "revision": None, "dtype": checkpoint.dtype}
    return {"class": type(indicator).__name__, **portable(plain)}


def to_settings(indicator: Indicator) -> dict[str, Any]:
    """All settings as a rule's JSON holds them; a local model by its folder and the digest of its weights."""
    # Through JSON, so that it compares equal to what is read from a file.
    settings = json.loads(json.dumps(indicator.settings(), default=_plain))
    if runs_model(indicator):
        settings |= _local_weights(indicator.model)
    if embedder := embedder_of(indicator):
        settings["embedder"] = asdict(embedder) | _local_weights(embedder.model)
    return portable(settings)


def own_settings(indicator: Indicator) -> dict[str, Any]:
    """The same without those that are the default of the indicator's class."""
    kind = find_indicator(type(indicator).__name__)
    try:
        defaults = to_settings(kind()) if kind else {}
    except TypeError:
        # An indicator of the user's own that has no default for everything.
        defaults = {}
    return {name: value for name, value in to_settings(indicator).items() if defaults.get(name, ...) != value}


def from_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings as an indicator's class takes them: an embedder made of its own, tuples where JSON has lists."""
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    if isinstance(arguments.get("embedder"), Mapping):
        arguments["embedder"] = Embedder(**from_settings(arguments["embedder"]))
    return arguments


def without_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the digests that ``to_settings`` puts beside the folders of local models."""
    kept = {name: value for name, value in settings.items() if name != "weights"}
    return {name: without_weights(v) if isinstance(v, Mapping) else v for name, v in kept.items()}


def other_weights(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with a local model whose weights some settings state; None where nothing is."""
    for stated in (settings, settings.get("embedder")):
        if isinstance(stated, Mapping) and "weights" in stated:
            folder, weights = stated["model"], stated["weights"]
            present = local_digest(folder) if is_local(folder) else None
            if present != weights:
                trouble = "there is no such folder" if present is None else f"the one in this folder has {present}"
                return f"the model {folder} with {weights}, and {trouble}"
    return None


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data without what only says where something ran, at any depth: ``device`` and ``compile``.

    Example:
        >>> portable({"model": "m", "device": "cuda", "embedder": {"device": None, "dtype": "float32"}})
        {'model': 'm', 'embedder': {'dtype': 'float32'}}
    """
    return {
        name: portable(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in {"device", "compile"}
    }


def find_indicator(name: str) -> type[Indicator] | None:
    """The indicator class of a name: one of this package, or one that an installed package brings.

    A package brings one by an entry point, in its ``pyproject.toml``::

        [project.entry-points."im_datasets.indicators"]
        Politeness = "polite.scores:Politeness"
    """
    # First, so that no other package takes a name of this one over.
    if name in catalogue.__all__:
        return _packaged(name)
    brought = next((point.load() for point in entry_points(group=ENTRY_POINTS, name=name)), None)
    return brought if isinstance(brought, type) and issubclass(brought, Indicator) else None


class Recorded(Protocol):
    """What a record states of an indicator; ``IndicatorRecord`` of the scoring stage is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def model(self) -> dict[str, Any] | None: ...  # noqa: D102


class NotRescorable(HubError):  # noqa: N818 - an outcome, told to the reader
    """An indicator cannot be run again here; the message says why."""


def rebuild(record: Recorded) -> Indicator:
    """The indicator that a record states, with its settings and its model's commit.

    Args:
        record: As it was published.

    Raises:
        NotRescorable: It is not one of this package, runs a function of somebody's own, is of another version, its
            model or tokenizer is a local folder or of no recorded commit, it wants code from a model's repository, or
            it needs more than a record holds.
    """
    if (kind := _packaged(record.name)) is None:
        raise NotRescorable("it is no indicator of this package")
    if kind is FunctionIndicator:
        raise NotRescorable("it runs a function of its publisher's")
    if kind is TargetSimilarity:
        raise NotRescorable("of its targets the record has the digest alone")
    # Other numbers would not say that the published ones are wrong.
    if kind.version != record.version:
        raise NotRescorable(f"it is of version {kind.version} here, the rows were scored by version {record.version}")
    settings = _pinned(record.settings, record.model)
    try:
        return kind(**from_settings(settings))
    except (ImDatasetsError, TypeError, ValueError) as error:
        raise NotRescorable(f"it does not take its recorded settings here ({error})") from error


def rebuild_embedder(record: Recorded) -> Embedder | None:
    """The sentence encoder of an indicator that a record states, at its model's commit; None where it has none.

    Raises:
        NotRescorable: It cannot be made again here, as when its model was a local folder.
    """
    settings = record.settings.get("embedder")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise NotRescorable("its recorded embedder is none of this package's")
    settings = _pinned(settings, record.model)
    try:
        return Embedder(**from_settings(settings))
    except (ImDatasetsError, TypeError, ValueError) as error:
        raise NotRescorable(f"its embedder does not take its recorded settings here ({error})") from error


def _packaged(name: str) -> type[Indicator] | None:
    """An indicator class of this package: the only ones that a stranger's record may name."""
    kind = getattr(catalogue, name) if name in catalogue.__all__ else None
    return kind if isinstance(kind, type) and issubclass(kind, Indicator) else None


def _pinned(settings: dict[str, Any], model: dict[str, Any] | None) -> dict[str, Any]:
    """Settings in which a model stands at the commit it was scored with, on a device of this machine."""
    pinned = dict(settings)
    if pinned.get("trust_remote_code"):
        raise NotRescorable("it runs code from the model's repository, which is not done for a stranger's record")
    for name, value in pinned.items():
        if isinstance(value, dict):
            pinned[name] = _pinned(value, model)
    stated = pinned.get("model")
    if stated is not None:
        packaged = stated in (EMBEDDED, STATIC)
        if not packaged:
            _check_hub_id("model", stated)
        commit = str((model or {}).get("revision"))
        if not packaged and not _COMMIT.fullmatch(commit):
            raise NotRescorable(f"its model {stated!r} was a local folder")
        # The device is not taken over: the publisher's may not be here.
        pinned |= {"revision": None if packaged else commit, "device": None}
        # A setting of None was resolved on the publisher's device, and would be resolved otherwise on this one.
        if "dtype" in pinned and model:
            pinned["dtype"] = model.get("dtype", pinned["dtype"])
    tokenizer = pinned.get("tokenizer")
    if tokenizer not in (None, EMBEDDED):
        _check_hub_id("tokenizer", tokenizer)
        if not _COMMIT.fullmatch(str(pinned.get("revision"))):
            reason = "no commit of it was recorded, and it may have changed since"
            raise NotRescorable(f"its tokenizer {shown(repr(tokenizer))}: {reason}")
    return pinned


def _check_hub_id(kind: str, name: Any) -> None:
    """Refuse a name in a stranger's record that would open anything but a repository of the Hub."""
    if not isinstance(name, str) or not HUB_ID.fullmatch(name) or leads_outside(name):
        raise NotRescorable(f"its {kind} {shown(repr(name))} is no id of the Hub")
    # Loaders take a folder of that name first, wherever this runs.
    if Path(name).exists():
        reason = "is also the name of something in this folder, which a record may not open; verify in another folder"
        raise NotRescorable(f"its {kind} {name!r} {reason}")


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _local_weights(model: str) -> dict[str, str]:
    return {"model": str(Path(model).resolve()), "weights": local_digest(model)} if is_local(model) else {}
