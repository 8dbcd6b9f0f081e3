"""What a push would write, what it changes of what is there, and what it refuses to change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import unified_diff
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ConflictError, HubError
from im_datasets.common.version import __version__
from im_datasets.hub.card_merge import merge_card, read_front_matter, split_card
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import Parts
from im_datasets.hub.repository import Snapshot
from im_datasets.hub.terms import Stated, fill_facts, source_states
from im_datasets.report.card import CARD, CONFIGS, STANDALONE, Card, block_digests, render_card, write_figures
from im_datasets.report.card_facts import CardFacts, check_licence, missing_facts
from im_datasets.report.configs import MANIFEST, Published
from im_datasets.report.page import write_report
from im_datasets.report.result_folder import REPORT, describe_selection
from im_datasets.selection.select import Selection

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Change:
    """What a push does to one file.

    Attributes:
        path: In the repository.
        action: ``add``, ``update``, ``delete`` or ``keep``.
        size: In bytes, after the push; 0 when deleted.
    """

    path: str
    action: str
    size: int


@dataclass
class Publication:
    """The files of a selection, all but those that depend on what is in the repository."""

    selection: Selection
    parts: Parts
    columns: str
    facts: CardFacts
    card: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        self.source = source_states(self.selection.record)

    def add_files(self, *, report: bool) -> None:
        """Put figures, and a report of the record without paths, beside the shards."""
        folder, record = self.parts.folder, self.selection.record
        paths = write_figures(self.selection, folder)
        if report and record:
            write_report(self.selection, record, folder / REPORT)
            paths.append(REPORT)
        for path in paths:
            self.parts.files[path] = Published.of_file(folder / path)

    def files_for(self, snapshot: Snapshot) -> dict[str, Path | bytes]:
        """Path → content of every file, the card merged into the one that is there.

        Raises:
            HubError: Licence or language were not given, and no card states them.
            ConflictError: The card that is there cannot be merged with.
        """
        nearest = [Stated.of(text) for text in (snapshot.card, self.card) if text]
        facts = fill_facts(self.facts, nearest, self.source)
        if hints := missing_facts(facts.license, facts.language):
            raise HubError("; ".join(hints) + ". Where nobody knows, 'unknown' is a licence and 'und' a language")
        check_licence(str(facts.license))
        record, parts = self.selection.record, self.parts
        is_original = self.columns == "original"
        digests = {path: file.sha256 for path, file in parts.files.items()}
        options = {"configs": parts.configs, "infos": parts.infos, "digests": digests, "original": is_original}
        fresh = render_card(self.selection, record, facts, **options)  # type: ignore[arg-type]
        manifest = Manifest(
            package_version=__version__,
            repo_id=str(facts.repo_id),
            selection=describe_selection(self.selection),
            record=record,
            columns=self.columns,
            configs=parts.configs,
            files=dict(sorted(parts.files.items())),
            card={"facts": asdict(facts), "blocks": block_digests(fresh.blocks), "metadata": fresh.metadata},
        )
        texts = {CARD: self._merged(fresh, snapshot), MANIFEST: manifest.to_json()}
        encoded = {path: text.encode("utf-8", errors="surrogateescape") for path, text in texts.items()}
        return {**{path: parts.folder / path for path in parts.files}, **encoded}

    def _merged(self, fresh: Card, snapshot: Snapshot) -> str:
        """The card in what people wrote: around the one that is there, else around the one that was given."""
        if snapshot.card is None:
            return merge_card(self.card or "", fresh, configs=list(CONFIGS), overwrite=True)
        last = snapshot.manifest
        known: dict[str, Any] = (
            {
                "published": last.card.get("blocks"),
                "claimed": last.card.get("metadata"),
                "configs": list(last.configs),
            }
            if last
            else {}
        )
        return merge_card(snapshot.card, fresh, **known, overwrite=self.overwrite)


@dataclass(frozen=True)
class Plan:
    """What has to be done to a snapshot."""

    snapshot: Snapshot
    contents: dict[str, Path | bytes]
    local: dict[str, Published]
    changes: list[Change]

    @classmethod
    def of(cls, publication: Publication, snapshot: Snapshot) -> "Plan":
        """Compare what should be there with what is.

        Raises:
            ConflictError: A file that would be replaced or deleted is not as im-datasets left it.
        """
        contents = publication.files_for(snapshot)
        known = publication.parts.files
        local = {path: known.get(path) or _describe(content) for path, content in contents.items()}
        changes = [change_of(path, file, snapshot.oids) for path, file in local.items()]
        old = snapshot.manifest.files if snapshot.manifest else {}
        gone = [path for path in old if path in snapshot.oids and path not in contents]
        changes += [Change(path, "delete", 0) for path in gone]
        plan = cls(snapshot, contents, local, changes)
        plan.check_standalone()
        if not publication.overwrite:
            plan.check_foreign()
            plan.check_hidden()
        return plan

    @property
    def writes(self) -> list[Change]:
        """The changes that do something."""
        return [change for change in self.changes if change.action != "keep"]

    def check_foreign(self) -> None:
        """Refuse to replace what somebody else wrote."""
        ours = self.snapshot.manifest.files if self.snapshot.manifest else {}
        foreign = [
            change.path
            for change in self.writes
            if change.action in {"update", "delete"}
            and not (change.path == CARD or (change.path == MANIFEST and self.snapshot.manifest))
            and not self._is_as_pushed(change.path, ours.get(change.path))
        ]
        if foreign:
            raise ConflictError(
                f"{', '.join(foreign)} in the repository is not as im-datasets left it; push to another repository or "
                "branch, or pass overwrite=True (--overwrite) to replace it"
            )

    def check_standalone(self) -> None:
        """Refuse where another file overrules the card, so that load_dataset would not give the selection."""
        fields = read_front_matter(self.snapshot.standalone or "", f"{STANDALONE} of the repository")
        if names := [name for name in ("configs", "dataset_info") if name in fields]:
            raise ConflictError(
                f"{STANDALONE} in the repository has {' and '.join(names)}, which datasets reads instead of the "
                "card's; take them out of that file, or push to another repository"
            )

    def check_hidden(self) -> None:
        """Refuse to name configs where there were none, and so to take other data files from sight."""
        front = read_front_matter(split_card(self.snapshot.card or "")[0])
        if self.snapshot.manifest or front.get("configs"):
            return
        if hidden := [path for path in self.snapshot.oids if path not in self.contents and _is_loaded(path)]:
            raise ConflictError(
                f"the repository holds {hidden[0]}, which load_dataset gives now and would not after the push; push "
                "elsewhere, name that file in configs of its README.md, or pass overwrite=True (--overwrite)"
            )

    def _is_as_pushed(self, path: str, pushed: Published | None) -> bool:
        return pushed is not None and self.snapshot.oids[path] in (pushed.sha256, pushed.git_sha1)

    def check_untouched(self, before: Snapshot) -> None:
        """Refuse when the files to be written changed while this push was under way."""
        paths = [change.path for change in self.writes if change.path != CARD]
        touched = [path for path in paths if before.oids.get(path) != self.snapshot.oids.get(path)]
        if touched:
            raise ConflictError(
                f"somebody else changed {', '.join(touched)} while this push was under way (commit "
                f"{self.snapshot.sha}); look at it, then push again"
            )

    def card_diff(self) -> str:
        """How the card changes."""
        content = self.contents[CARD]
        assert isinstance(content, bytes)  # noqa: S101 - the card is a text
        new, old = content.decode("utf-8", "replace"), self.snapshot.card or ""
        sides = (old.splitlines(keepends=True), new.splitlines(keepends=True))
        return "".join(unified_diff(*sides, "README.md (there)", "README.md (pushed)"))


def _is_loaded(path: str) -> bool:
    """Whether load_dataset would take a file for data where nothing names configs.

    Notes are no data, though `datasets` knows a format that is made of them: it needs a ``task.toml`` for that.
    """
    from datasets.data_files import FILES_TO_IGNORE
    from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS

    *folders, name = PurePosixPath(path).parts
    if name in FILES_TO_IGNORE or any(part.startswith((".", "__")) for part in (*folders, name)):
        return False
    known = {suffix.lower() for suffix in _ALL_ALLOWED_EXTENSIONS} - {".md", ".toml"}
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    return name == "task.toml" or bool(known.intersection(suffixes))


def _describe(content: Path | bytes) -> Published:
    return Published.of(content) if isinstance(content, bytes) else Published.of_file(content)


def change_of(path: str, local: Published, oids: Mapping[str, str]) -> Change:
    """What a push does to one file, by what is there now."""
    there = oids.get(path)
    action = "add" if there is None else "keep" if there in (local.sha256, local.git_sha1) else "update"
    return Change(path, action, local.size)
