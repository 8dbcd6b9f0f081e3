"""An indicator ↔ plain data: making again what a record or a rule tells of.

A record may come from a stranger: it may name classes of this package and models of the Hub, and nothing of it is run
or opened beyond that.
"""

import re
from dataclasses import is_dataclass
from typing import Any, Protocol, get_args, get_type_hints

from im_datasets import indicators as catalogue
from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.data.source import HUB_ID
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.function import FunctionIndicator
from im_datasets.models.embedder import Embedder
from im_datasets.models.hub_models import EMBEDDED
from im_datasets.models.static_embedder import STATIC

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Recorded(Protocol):
    """What a record tells of an indicator."""

    @property
    def name(self) -> str:
        """The indicator's class."""

    @property
    def version(self) -> str:
        """The version of the class."""

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings as plain data."""

    @property
    def model(self) -> dict[str, Any] | None:
        """Its model as it was resolved; None where it has none."""


class NotRescorable(HubError):  # noqa: N818 - an outcome, told to the reader
    """An indicator cannot be run again here; the message says why."""


def rebuild(record: Recorded) -> Indicator:
    """The indicator that a record tells of, with its settings and its model's commit.

    Args:
        record: As it was published.

    Raises:
        NotRescorable: It is not one of this package, runs a function of somebody's own, is of another version, its
            model is a local folder, or it wants code from a model's repository.
    """
    if record.name not in catalogue.__all__:
        raise NotRescorable("it is no indicator of this package")
    kind = getattr(catalogue, record.name)
    if not (isinstance(kind, type) and issubclass(kind, Indicator)):
        raise NotRescorable("it is no indicator of this package")
    if kind is FunctionIndicator:
        raise NotRescorable("it runs a function of its publisher's")
    if kind.version != record.version:
        raise NotRescorable(f"it is of version {kind.version} here, the rows were scored by version {record.version}")
    try:
        return _build(kind, _pinned(record.settings, record.model))  # type: ignore[no-any-return]
    except NotRescorable:
        raise
    except (ImDatasetsError, TypeError, ValueError) as error:
        raise NotRescorable(f"it does not take its recorded settings here ({error})") from error


def rebuild_embedder(record: Recorded) -> Embedder | None:
    """The sentence encoder of an indicator that a record tells of, at its model's commit; None where it has none.

    Raises:
        NotRescorable: It cannot be made again here, as when its model was a local folder.
    """
    settings = record.settings.get("embedder")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise NotRescorable("its recorded embedder is none of this package's")
    try:
        return _build(Embedder, _pinned(settings, record.model))  # type: ignore[no-any-return]
    except NotRescorable:
        raise
    except (ImDatasetsError, TypeError, ValueError) as error:
        raise NotRescorable(f"its embedder does not take its recorded settings here ({error})") from error


def _pinned(settings: dict[str, Any], model: dict[str, Any] | None) -> dict[str, Any]:
    """Settings in which a model stands at the commit it was scored with, on a device of this machine."""
    pinned = dict(settings)
    if pinned.get("trust_remote_code"):
        raise NotRescorable("it runs code from the model's repository, which is not done for a stranger's record")
    for name, value in pinned.items():
        if isinstance(value, dict):
            pinned[name] = _pinned(value, model)
    wanted = pinned.get("model")
    if wanted is not None:
        packaged = wanted in (EMBEDDED, STATIC)
        if not packaged and not HUB_ID.fullmatch(str(wanted)):
            raise NotRescorable(f"its model {wanted!r} is no id of the Hub")
        commit = str((model or {}).get("revision"))
        if not packaged and not _COMMIT.fullmatch(commit):
            raise NotRescorable(f"its model {wanted!r} was a local folder")
        pinned |= {"revision": None if packaged else commit, "device": None}
        if "dtype" in pinned and model:
            pinned["dtype"] = model.get("dtype", pinned["dtype"])
    return pinned


def _build(kind: type, settings: dict[str, Any]) -> Any:
    """A dataclass from plain data: inner dataclasses and tuples by their type hints."""
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hints.get(name), value) for name, value in settings.items()})


def _typed(hint: Any, value: Any) -> Any:
    kinds = [hint, *get_args(hint)]
    if isinstance(value, dict):
        inner = next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)
        return _build(inner, value) if inner else value
    if isinstance(value, list) and any(getattr(kind, "__origin__", kind) is tuple for kind in kinds):
        return tuple(value)
    return value
