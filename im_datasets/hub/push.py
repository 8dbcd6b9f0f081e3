"""Selection → one commit, or one pull request, in a dataset repository; the only module that writes to the Hub.

A push reads what is there, works out what has to change, and sends all of it as one commit on top of what it
read. When the repository has moved meanwhile it reads again and merges anew; what somebody else changed of the
files it would write, it leaves alone and says so. Tokens are those of `huggingface_hub`'s own login.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import unified_diff
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ConflictError, HubError
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.hub.card_merge import merge_card, read_front_matter, split_card
from im_datasets.hub.client import (
    ATTEMPTS,
    client_errors,
    explain,
    explained,
    is_worth_retrying,
    may_have_landed,
    try_again,
    wait_before_retry,
)
from im_datasets.hub.manifest import MANIFEST, Manifest, Published, without_paths
from im_datasets.hub.parquet_configs import Parts, write_parts
from im_datasets.hub.secret_scan import Finding, find_secrets
from im_datasets.hub.terms import Stated, fill_facts, source_states
from im_datasets.report.card import (
    CARD,
    CONFIGS,
    STANDALONE,
    Card,
    CardFacts,
    as_codes,
    block_digests,
    missing_facts,
    render_card,
    write_figures,
)
from im_datasets.report.card_facts import check_language, check_licence
from im_datasets.report.page import write_report
from im_datasets.report.result_folder import REPORT, describe_selection
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import Selection

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi


class SecretsWarning(UserWarning):
    """Rows that look as if they held a secret are about to be made public."""


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


@dataclass(frozen=True)
class Pushed:
    """What became of a push.

    Attributes:
        repo_id: Owner and name.
        url: Where to look at it.
        commit: The commit that holds the selection; None after a dry run.
        pull_request: Address of the pull request; None where none was asked for, or nothing had changed.
        revision: Where ``load_dataset`` finds it: a branch or ``refs/pr/…``.
        changed: Whether anything was, or would have been, written.
        changes: Every file of the selection and what was done to it.
        card_diff: How the card changed, as a unified diff; empty where it did not.
        secrets: Rows that look as if they held a secret, where they were made public.
        dry_run: Whether nothing was sent.
        new_branch: Whether the branch was, or would have been, made.
    """

    repo_id: str
    url: str
    commit: str | None
    pull_request: str | None
    revision: str
    changed: bool
    changes: list[Change]
    card_diff: str
    secrets: list[Finding] = field(default_factory=list)
    dry_run: bool = False
    new_branch: bool = False


def push_selected(
    selection: Selection,
    repo_id: str,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    pretty_name: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    tags: Sequence[str] = (),
    task_categories: Sequence[str] = (),
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    columns: str = "all",
    include_dropped: bool = False,
    include_scores: bool = False,
    scores_only: bool = False,
    report: bool = False,
    collection: str | None = None,
    record: ScoringRecord | None = None,
    card: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Publish a selection with a card that can be checked, as one commit or one pull request.

    Writes Parquet shards, ``README.md``, two figures and ``instructmining.json``. Pushing the same selection again
    writes nothing. In a repository that is there already, whatever im-datasets did not write stays.

    Args:
        selection: What ``select``, ``mine`` or ``load_selection`` gave.
        repo_id: Owner and name; the name alone is taken as one of your own.
        license: Licence id of the rows, as the Hub names it. None takes it from the card that is there, or from
            the source's card; it is never guessed.
        language: Language code or codes of the rows; None as for the licence.
        pretty_name: Title of the dataset.
        license_name: Name of a licence that the Hub calls ``other``.
        license_link: Where that licence stands.
        tags: Tags of the card, beside ``im-datasets`` and ``instruction-mining``.
        task_categories: The Hub's names of tasks; None given takes them from the source's card.
        private: Whether a new repository is private; None leaves it to the Hub's default for the owner.
        create_pr: Whether to open a pull request instead of writing to the branch.
        revision: Branch to write to, made where it is missing, or ``refs/pr/…`` of a pull request; None is ``main``.
        columns: ``all``, or ``original`` for the source's own columns alone.
        include_dropped: Whether the dropped rows become the config ``dropped``.
        include_scores: Whether row numbers and scores of all rows become the config ``scores``.
        scores_only: Whether that is the only config, for rows that may not be passed on.
        report: Whether to publish ``report.html`` too, which shows rows of both sides; with ``scores_only`` it must
            be left out. It is made anew, since the one that ``mine`` wrote names this machine's paths.
        collection: Slug of a collection to add the dataset to.
        record: How the scores came about; None takes the selection's own. Without one the card says so.
        card: Text of a card of the rows to start from, such as ``mine`` wrote: licence, languages and title are taken
            from it, and what people added to it is kept where the repository has no card yet.
        message: Title of the commit or pull request.
        overwrite: Whether files and parts of the card that somebody else changed may be replaced.
        dry_run: Whether to send nothing, only to say what would be done.

    Returns:
        What was done, file by file.

    Raises:
        HubError: Nothing can be published as asked, or the Hub refused or cannot be reached; the message says
            which, and what to do.
        ConflictError: Somebody else changed what would have been written.
    """
    given = CardFacts(
        license=license,
        language=as_codes(language),
        pretty_name=pretty_name,
        license_name=license_name,
        license_link=license_link,
        task_categories=tuple(task_categories),
        tags=tuple(tags),
    )
    if license is not None:
        check_licence(license)
    for code in given.language:
        check_language(code)
    if create_pr and revision not in (None, "main"):
        raise HubError(f"create_pr opens a pull request against main, revision={revision!r} writes there; pass one")
    if scores_only and report:
        raise HubError("scores_only leaves all texts out, and the report shows some (--with-report); pass one of them")
    known = record or selection.record
    if report and known is None:
        raise HubError("the report tells how the scores came about, and no record does; pass record=, or no report")
    selection = replace(selection, record=None if known is None else without_paths(known))
    with explained(repo_id), TemporaryDirectory(prefix="im-datasets-") as folder:
        target = _Target.of(repo_id, private=private, create_pr=create_pr, revision=revision or "main")
        if collection:
            with explained(f"collection {collection}"):
                try_again(lambda: target.api.get_collection(collection), collection)
        options = {"include_dropped": include_dropped, "include_scores": include_scores, "scores_only": scores_only}
        parts = write_parts(selection, Path(folder), columns=columns, **options)
        branch = None if target.revision == "main" else target.revision
        facts = replace(given, repo_id=target.repo_id, revision=branch)
        publication = _Publication(selection, parts, columns, facts, card, overwrite)
        publication.add_files(report=report)
        push = _Push(target, publication, message or f"{len(selection.kept):,} rows selected by im-datasets")
        pushed = push.plan_only() if dry_run else push.run()
        if collection and not dry_run:
            _add_to_collection(target, collection, pushed)
    return pushed


def _add_to_collection(target: "_Target", collection: str, pushed: Pushed) -> None:
    """Add the dataset to a collection.

    Raises:
        HubError: That failed, and the message says that the selection is there.
    """

    def add() -> None:
        target.api.add_collection_item(collection, target.repo_id, "dataset", exists_ok=True)

    try:
        try_again(add, collection)
    except client_errors() as error:
        raise HubError(
            f"{pushed.url} holds the selection (commit {(pushed.commit or '')[:8]}), but adding it to the collection "
            f"failed: {explain(error, collection)}; push again for that, no file is sent twice"
        ) from None


@dataclass(frozen=True)
class _Snapshot:
    """A branch as it was at one moment.

    Attributes:
        sha: Its commit; None where the repository is not there.
        private: Whether the repository is private; None where it is not there.
        oids: Path → sha256 of a big file, git's sha1 of a small one.
        card: ``README.md``; None where there is none.
        manifest: What was last pushed; None where nothing was.
        standalone: ``.huggingface.yaml``; None where there is none.
        has_branch: Whether the branch is there; else this is ``main``, from which it will be made.
    """

    sha: str | None = None
    private: bool | None = None
    oids: Mapping[str, str] = field(default_factory=dict)
    card: str | None = None
    manifest: Manifest | None = None
    standalone: str | None = None
    has_branch: bool = True


@dataclass(frozen=True)
class _Target:
    """Where a push goes."""

    api: "HfApi"
    repo_id: str
    private: bool | None
    create_pr: bool
    revision: str

    @classmethod
    def of(cls, repo_id: str, **settings: Any) -> "_Target":
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils._validators import validate_repo_id

        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE is set, so the Hub may not be asked; unset it to push")
        api = HfApi(library_name="im-datasets", library_version=__version__)
        if "/" not in repo_id:
            repo_id = f"{try_again(api.whoami, repo_id)['name']}/{repo_id}"
        validate_repo_id(repo_id)
        return cls(api, repo_id, **settings)

    def read(self) -> _Snapshot:
        """What is there now."""
        return try_again(self._read, self.repo_id)

    def _read(self) -> _Snapshot:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        has_branch = True
        try:
            info = self.api.dataset_info(self.repo_id, revision=self.revision)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return _Snapshot()
        except RevisionNotFoundError:
            if self.revision.startswith("refs/"):
                raise
            info, has_branch = self.api.dataset_info(self.repo_id, revision="main"), False
        oids = self.oids_at(str(info.sha))
        manifest = self.text(MANIFEST, info.sha) if MANIFEST in oids else None
        return _Snapshot(
            sha=info.sha,
            private=info.private,
            oids=oids,
            card=self.text(CARD, info.sha) if CARD in oids else None,
            manifest=_read_manifest(manifest),
            standalone=self.text(STANDALONE, info.sha) if STANDALONE in oids else None,
            has_branch=has_branch,
        )

    def oids_at(self, revision: str) -> dict[str, str]:
        """Path → digest of every file."""
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision, repo_type="dataset")
        files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def text(self, path: str, revision: str | None) -> str:
        """A file's text."""
        local = self.api.hf_hub_download(self.repo_id, path, repo_type="dataset", revision=revision)
        return Path(local).read_bytes().decode("utf-8", errors="surrogateescape")

    def create(self) -> None:
        """Make the repository."""
        try_again(
            lambda: self.api.create_repo(self.repo_id, repo_type="dataset", private=self.private, exist_ok=True),
            self.repo_id,
        )

    def make_branch(self, sha: str | None) -> None:
        """Make the branch at a commit."""
        try_again(
            lambda: self.api.create_branch(
                self.repo_id, branch=self.revision, revision=sha, repo_type="dataset", exist_ok=True
            ),
            self.repo_id,
        )


def _read_manifest(text: str | None) -> Manifest | None:
    """What was last pushed; None where that file is not ours, which is found out when it would be replaced."""
    try:
        return None if text is None else Manifest.from_json(text)
    except HubError:
        return None


@dataclass
class _Publication:
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
            write_report(self.selection, record, Columns(**record.columns["fields"]), folder / REPORT)
            paths.append(REPORT)
        for path in paths:
            self.parts.files[path] = Published.of_file(folder / path)

    def files_for(self, snapshot: _Snapshot) -> dict[str, Path | bytes]:
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

    def _merged(self, fresh: Card, snapshot: _Snapshot) -> str:
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
class _Plan:
    """What has to be done to a snapshot."""

    snapshot: _Snapshot
    contents: dict[str, Path | bytes]
    local: dict[str, Published]
    changes: list[Change]

    @classmethod
    def of(cls, publication: _Publication, snapshot: _Snapshot) -> "_Plan":
        """Compare what should be there with what is.

        Raises:
            ConflictError: A file that would be replaced or deleted is not as im-datasets left it.
        """
        contents = publication.files_for(snapshot)
        known = publication.parts.files
        local = {path: known.get(path) or _describe(content) for path, content in contents.items()}
        changes = [_change(path, file, snapshot.oids) for path, file in local.items()]
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

    def check_untouched(self, before: _Snapshot) -> None:
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


def _change(path: str, local: Published, oids: Mapping[str, str]) -> Change:
    there = oids.get(path)
    action = "add" if there is None else "keep" if there in (local.sha256, local.git_sha1) else "update"
    return Change(path, action, local.size)


@dataclass
class _Push:
    """One push, from reading the repository to the commit."""

    target: _Target
    publication: _Publication
    message: str

    def plan_only(self) -> Pushed:
        """Say what would be done."""
        plan = self._plan()
        secrets = self._warn_of_secrets(plan)
        new_branch, written = not plan.snapshot.has_branch, bool(plan.writes)
        return self._pushed(plan, None, None, secrets=secrets, written=written, dry_run=True, new_branch=new_branch)

    def run(self) -> Pushed:
        """Do it, reading and merging anew as often as needed."""
        before: _Snapshot | None = None
        sent: _Plan | None = None
        secrets: list[Finding] = []
        new_branch = False
        for attempt in range(1, ATTEMPTS + 1):
            plan = self._plan()
            if before is None and plan.snapshot.sha is None:
                self.target.create()
                plan = self._plan()
            if plan.writes and before is not None:
                plan.check_untouched(before)
            new_branch = new_branch or not plan.snapshot.has_branch
            found = self._pull_request_with(plan) if self.target.create_pr and plan.writes else None
            if found or not plan.writes:
                if not plan.snapshot.has_branch:
                    self.target.make_branch(plan.snapshot.sha)
                there: tuple[str | None, str | None] = found or (plan.snapshot.sha, None)
                # After a commit whose answer was lost, what is there now is what was sent.
                ours = sent is not None
                return self._pushed(sent or plan, *there, secrets=secrets, written=ours, new_branch=new_branch)
            if before is None:
                before, secrets = plan.snapshot, self._warn_of_secrets(plan)
            try:
                info, written = self._commit(plan)
            except Exception as error:
                if not is_worth_retrying(error) or attempt == ATTEMPTS:
                    raise
                sent = plan if may_have_landed(error) else None
                wait_before_retry(error, attempt, "the Hub did not take the commit")
            else:
                there = (info.oid, info.pr_url)
                return self._pushed(plan, *there, secrets=secrets, written=written, new_branch=new_branch)
        raise AssertionError("unreachable")  # pragma: no cover

    def _plan(self) -> _Plan:
        snapshot = self.target.read()
        if snapshot.private is False and self.target.private:
            raise HubError(
                f"{self.target.repo_id} is there and public, so private=True (--private) would not make it private; "
                "change its visibility in its settings, or push to another repository"
            )
        return _Plan.of(self.publication, snapshot)

    def _warn_of_secrets(self, plan: _Plan) -> list[Finding]:
        """Look through what will be public; a report shows rows of both sides."""
        is_private = self.target.private if plan.snapshot.private is None else plan.snapshot.private
        if is_private:
            return []
        selection, parts = self.publication.selection, self.publication.parts
        sides = {"kept": selection.kept, "dropped": selection.dropped}
        shown = [name for name in sides if name in parts.configs or REPORT in parts.files]
        found = [finding for name in shown for finding in find_secrets(sides[name])]
        for finding in found:
            warnings.warn(
                f"about to be public: {finding}; remove such rows before pushing", SecretsWarning, stacklevel=6
            )
        return found

    def _commit(self, plan: _Plan) -> tuple["CommitInfo", bool]:
        """The commit, and whether it is ours: the client sends none where all files are there by now."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        target, api = self.target, self.target.api
        adds = [
            CommitOperationAdd(change.path, plan.contents[change.path])
            for change in plan.writes
            if change.action != "delete"
        ]
        deletes = [CommitOperationDelete(change.path) for change in plan.writes if change.action == "delete"]
        if not plan.snapshot.has_branch:
            api.preupload_lfs_files(target.repo_id, adds, repo_type="dataset", revision="main", free_memory=False)
            target.make_branch(plan.snapshot.sha)
        info = api.create_commit(
            target.repo_id,
            [*adds, *deletes],
            commit_message=self.message,
            commit_description=f"Written by im-datasets {__version__}.",
            repo_type="dataset",
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=plan.snapshot.sha,
        )
        if target.create_pr and info.pr_revision is None:
            raise HubError(f"the Hub opened no pull request on {target.repo_id}; nothing was written, push again")
        # Set by the client on what it sent; where a later client has no such mark, the commit counts as ours.
        return info, any(getattr(operation, "_is_committed", True) for operation in adds)

    def _pull_request_with(self, plan: _Plan) -> tuple[str, str] | None:
        """Commit and address of an open pull request that already holds this very selection."""
        return try_again(lambda: self._find_pull_request(plan), self.target.repo_id)

    def _find_pull_request(self, plan: _Plan) -> tuple[str, str] | None:
        api, repo_id = self.target.api, self.target.repo_id
        for request in api.get_repo_discussions(
            repo_id, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
        ):
            if request.title != self.message:
                continue
            oids = self.target.oids_at(f"refs/pr/{request.num}")
            same = all(_change(path, file, oids).action == "keep" for path, file in plan.local.items())
            if same and not any(change.path in oids for change in plan.changes if change.action == "delete"):
                sha = api.dataset_info(repo_id, revision=f"refs/pr/{request.num}").sha
                return str(sha), request.url
        return None

    def _pushed(
        self,
        plan: _Plan,
        commit: str | None,
        pull_request: str | None,
        *,
        secrets: Sequence[Finding] = (),
        written: bool,
        dry_run: bool = False,
        new_branch: bool = False,
    ) -> Pushed:
        target = self.target
        number = pull_request.rstrip("/").rpartition("/")[2] if pull_request else None
        return Pushed(
            repo_id=target.repo_id,
            url=pull_request or f"{target.api.endpoint}/datasets/{target.repo_id}",
            commit=commit,
            pull_request=pull_request,
            revision=f"refs/pr/{number}" if number else target.revision,
            changed=written or new_branch,
            changes=plan.changes,
            card_diff=plan.card_diff(),
            secrets=list(secrets),
            dry_run=dry_run,
            new_branch=new_branch,
        )
