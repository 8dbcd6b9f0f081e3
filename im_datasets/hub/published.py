"""A published selection, on the Hub or in a folder → its tables, its claims and a Selection again. Only reads."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from im_datasets.common.errors import HubError, OutputError, UntrustedError, message_of
from im_datasets.common.untrusted import TEXT_BYTES, file_in, read_bytes, shown
from im_datasets.data.arrow import stored
from im_datasets.data.hub_repository import CARD, INFOS, STANDALONE
from im_datasets.data.parquet_bounds import COMPRESSION, check_parquet
from im_datasets.data.source import HUB_ID
from im_datasets.hub.client import client_errors, explain, is_out_of_reach, status_of, try_again
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import DROP_FEATURES
from im_datasets.report.configs import MANIFEST
from im_datasets.report.result_folder import describe_settings, load_result
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import RECORD, ScoringRecord
from im_datasets.selection.added_columns import IS_KEPT, check_added
from im_datasets.selection.select import DUPLICATE_OF, REASON, ROW, Selection

ATTEMPTS = 3
"""How often each request is tried: there may be a copy on this machine, so this gives up sooner than a push."""

_TEXTS = (CARD, STANDALONE, INFOS)
"""What `datasets` reads beside the files that the manifest names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedSelection:
    """A selection as somebody else finds it.

    Attributes:
        name: What was asked for.
        folder: Where its files lie on this machine; ``file`` opens one.
        manifest: What it claims; None for a folder of ``mine``, which has no checksums.
        record: How the scores came about; None where that was not published.
        commit: The commit it was read at; None for a folder.
        is_from_cache: Whether the Hub could not be asked, so that this is what was last read from it here.
        withheld: Path → why that file was not fetched.
    """

    name: str
    folder: Path
    manifest: Manifest | None
    record: ScoringRecord | None
    commit: str | None = None
    is_from_cache: bool = False
    withheld: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, target: str | Path, revision: str | None = None) -> Self:
        """Find a published selection; ``load_selection`` says what may be given.

        Raises:
            HubError: Nothing is there, or it is no selection of im-datasets.
        """
        folder = Path(target)
        if not folder.is_dir():
            if not HUB_ID.fullmatch(str(target)):
                raise HubError(f"no folder {target}, and that is no dataset id of the Hub either; check the name")
            return cls._on_hub(str(target), revision)
        if path := _file_in(folder, MANIFEST):
            manifest = _read_manifest(path)
            return cls(folder.name, folder, manifest, manifest.record)
        if path := _file_in(folder, RECORD):
            return cls(folder.name, folder, None, ScoringRecord.load(path))
        raise HubError(f"{folder} holds neither {MANIFEST} nor {RECORD}; pass what push published or mine wrote")

    @classmethod
    def _on_hub(cls, repo_id: str, revision: str | None) -> Self:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            head = _Head.of(repo_id, revision)
            manifest_path, folder, withheld = _download(repo_id, revision, head)
        except LocalEntryNotFoundError as error:
            if status_of(error):
                raise HubError(explain(error, repo_id)) from None
            raise HubError(f"{repo_id} is not in the local cache, and the Hub cannot be reached; try again") from error
        except EntryNotFoundError as error:
            raise HubError(f"{repo_id} has no {MANIFEST}, so it is no selection pushed by im-datasets") from error
        except client_errors() as error:
            raise HubError(explain(error, repo_id)) from None
        commit = manifest_path.parent.name
        if head is None:
            logger.warning("the Hub cannot be reached: %s is read from the local cache at %s", repo_id, commit)
        manifest = _read_manifest(manifest_path)
        return cls(repo_id, folder, manifest, manifest.record, commit, is_from_cache=head is None, withheld=withheld)

    @property
    def card(self) -> str | None:
        """The text of its card; None where there is none.

        Raises:
            HubError: It leads out of the folder, or is larger than any card.
        """
        content = self.content(CARD)
        return None if content is None else content.decode("utf-8", errors="surrogateescape")

    def file(self, path: str) -> Path | None:
        """One of its files on this machine; None where it is not there.

        Raises:
            HubError: It was not fetched, or leads out of the folder.
        """
        if path in self.withheld:
            raise HubError(f"{path} {self.withheld[path]}")
        return _file_in(self.folder, path)

    def content(self, path: str) -> bytes | None:
        """The content of one of its texts; None where it is not there.

        Raises:
            HubError: As ``file``, or it is larger than a text may be.
        """
        place = self.file(path)
        try:
            return read_bytes(place, path) if place else None
        except UntrustedError as error:
            raise HubError(str(error)) from error

    @cached_property
    def tables(self) -> dict[str, Dataset]:
        """Config name → rows.

        Raises:
            HubError: A file is missing, no Parquet, or more than it should be.
        """
        if self.manifest is None:
            selection = load_result(self.folder)
            return _checked({"kept": selection.kept, "dropped": selection.dropped}, self.record)
        configs, files = self.manifest.configs, {}
        for path in [path for config in configs.values() for path in config.files]:
            if (place := self.file(path)) is None:
                raise HubError(f"{path} of {self.name} is missing")
            files[path] = place
        names = {f"{path} of {self.name}": place for path, place in files.items()}
        try:
            check_parquet(names, compression=COMPRESSION)
            # Not by `load_dataset`, whose cache may hold an earlier state of the file.
            return _checked(
                {
                    name: concatenate_datasets([Dataset(pq.read_table(files[path])) for path in config.files])
                    for name, config in configs.items()
                },
                self.record,
            )
        except UntrustedError as error:
            raise HubError(str(error)) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise HubError(f"a Parquet file of {self.name} cannot be read: {message_of(error, 300)}") from error

    @cached_property
    def selection(self) -> Selection:
        """Both sides, as far as they were published.

        The kept rows have their scores, where these were published. The dropped rows have no texts where only their
        scores were published, and there are none where neither was.

        Raises:
            HubError: A file is missing or broken.
        """
        kept, claims = self.sides["kept"], self.claims
        dropped = self.sides.get("dropped", _none_dropped(kept))
        settings = describe_settings(claims)
        return Selection(kept, dropped, settings, claims.get("cut"), claims.get("reasons", {}), self.record)

    @property
    def claims(self) -> dict[str, Any]:
        """What the selection says of itself."""
        return (self.manifest.selection if self.manifest else self.record and self.record.selection) or {}

    @cached_property
    def sides(self) -> dict[str, Dataset]:
        """``kept`` and ``dropped`` rows with their scores, put together from the configs, as far as anything tells.

        Raises:
            HubError: A file is missing or broken, or there are no kept rows.
        """
        kept, dropped, scores = (self.tables.get(name) for name in ("kept", "dropped", "scores"))
        if scores is not None:
            is_kept = np.asarray(scores[IS_KEPT][:], dtype=bool)
            plain = scores.remove_columns([IS_KEPT])
            best = plain.select(np.flatnonzero(is_kept))
            best = best.remove_columns([name for name in (REASON, DUPLICATE_OF) if name in best.column_names])
            kept, dropped = _beside(kept, best), _beside(dropped, plain.select(np.flatnonzero(~is_kept)))
        if kept is None:
            raise HubError(f"{self.name} has neither kept rows nor scores")
        if dropped is None and self.claims.get("dropped") == 0:
            dropped = _none_dropped(kept)
        return {"kept": kept} if dropped is None else {"kept": kept, "dropped": dropped}

    @property
    def scored(self) -> dict[str, Dataset]:
        """The sides that have scores."""
        return {name: rows for name, rows in self.sides.items() if LOG_LOSS in rows.column_names}


def _checked(tables: dict[str, Dataset], record: ScoringRecord | None) -> dict[str, Dataset]:
    """Refuse columns of our own that hold images or the like, which `datasets` would open where they are read.

    Raises:
        HubError: Names the first one.
        UntrustedError: As ``check_added``.
    """
    for name, rows in tables.items():
        check_added(rows, record, f"the config {name}", (IS_KEPT, ROW) if name == "scores" else ())
        plain = stored(rows.features)
        for column, feature in rows.features.items():
            if column.startswith("im_") and plain[column] != feature:
                raise HubError(f"column {shown(column)} of {name} holds {shown(feature)}, not numbers or texts")
    return tables


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(read_bytes(path, MANIFEST))
    except UntrustedError as error:
        raise HubError(str(error)) from error


def _file_in(folder: Path, path: str) -> Path | None:
    try:
        return file_in(folder, path)
    except UntrustedError as error:
        raise HubError(str(error)) from error


def _none_dropped(kept: Dataset) -> Dataset:
    """The dropped side of a selection without one."""
    added = Dataset.from_dict({REASON: [], DUPLICATE_OF: []}, features=DROP_FEATURES)
    return concatenate_datasets([kept.select([]), added], axis=1)


@dataclass(frozen=True)
class _Head:
    """A commit as the Hub tells of it, before anything of it is fetched.

    Attributes:
        commit: What the branch, tag or commit stands for now.
        sizes: Path → bytes.
    """

    commit: str
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, repo_id: str, revision: str | None) -> "_Head | None":
        """Ask the Hub; None where it is out of reach."""
        from huggingface_hub import HfApi

        try:
            ask = partial(HfApi().dataset_info, repo_id, revision=revision, files_metadata=True)
            info = try_again(ask, repo_id, ATTEMPTS)
        except client_errors() as error:
            if is_out_of_reach(error):
                return None
            raise
        return cls(str(info.sha), {file.rfilename: file.size for file in info.siblings or () if file.size is not None})

    def withheld(self, manifest: Manifest) -> dict[str, str]:
        """The files that are not fetched, each with the reason."""
        large = f"which is more than the {TEXT_BYTES:,} that such a file may have; it was not fetched"
        reasons = {path: f"has {self.sizes.get(path, 0):,} bytes, {large}" for path in self.too_large(*_TEXTS)}
        for path, claim in manifest.files.items():
            size = self.sizes.get(path, claim.size)
            if size != claim.size:
                reasons[path] = f"has {size:,} bytes, claimed are {claim.size:,}; it was not fetched"
        return reasons

    def too_large(self, *paths: str) -> list[str]:
        """Those that ought to be small and are not."""
        return [path for path in paths if self.sizes.get(path, 0) > TEXT_BYTES]


def _download(repo_id: str, revision: str | None, head: _Head | None) -> tuple[Path, Path, dict[str, str]]:
    """Fetch what is claimed and what `datasets` reads beside it.

    Returns:
        The manifest's path, the folder of all, and what was not fetched.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    commit = head.commit if head else None
    if head and head.too_large(MANIFEST):
        size = head.sizes[MANIFEST]
        raise HubError(f"{MANIFEST} of {repo_id} has {size:,} bytes; more than {TEXT_BYTES:,} are not fetched")
    source: dict[str, Any] = {"repo_id": repo_id, "repo_type": "dataset", "local_files_only": commit is None}

    def manifest_at(place: str | None) -> Path:
        path = try_again(lambda: hf_hub_download(filename=MANIFEST, revision=place, **source), repo_id, ATTEMPTS)
        return Path(path)

    # By the branch, so that the cache knows it when the Hub is out of reach; by the commit where the branch moved.
    path = manifest_at(revision)
    if commit is not None and path.parent.name != commit:
        path = manifest_at(commit)
    source |= {"revision": path.parent.name}
    manifest = _read_manifest(path)
    withheld = head.withheld(manifest) if head else {}
    paths = [path for path in (*_TEXTS, *manifest.files) if path not in withheld]
    if head is None:
        folder = snapshot_download(**source, allow_patterns=paths)
        return path, Path(folder), withheld
    # Not as a snapshot: where its list of files is refused, that gives what happens to lie in the cache.
    for name in paths:
        if name in head.sizes:
            try_again(partial(hf_hub_download, filename=name, **source), repo_id, ATTEMPTS)
    return path, path.parent, withheld


def _beside(rows: Dataset | None, scores: Dataset) -> Dataset:
    """Rows with the scores that they lack; the scores alone where there are no rows of that side."""
    # Another number of rows is a claim that does not hold, for `verify` to tell.
    if rows is None or len(rows) != len(scores):
        return scores
    lacking = [name for name in scores.column_names if name not in rows.column_names]
    return concatenate_datasets([rows, scores.select_columns(lacking)], axis=1) if lacking else rows


def load_selection(repo_id: str | Path, revision: str | None = None) -> Selection:
    """Read a published selection back, with its record.

    Args:
        repo_id: Owner and name on the Hub, a folder with a copy of it, or a folder that ``mine`` wrote.
        revision: Branch, tag, commit or ``refs/pr/…`` on the Hub; None is ``main``.

    Returns:
        The kept rows; the dropped ones too where they or their scores were published; settings, cut, reasons and
        record.

    Raises:
        HubError: It is not there, or no selection of im-datasets.
    """
    try:
        return PublishedSelection.open(repo_id, revision).selection
    except OutputError as error:
        raise HubError(str(error)) from error
