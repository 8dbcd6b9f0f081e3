"""Selection → one commit, or one pull request, in a dataset repository.

A push reads what is there, works out what has to change, and sends all of it as one commit on top of what it
read. When the repository has moved meanwhile it reads again and merges anew; what somebody else changed of the
files it would write, it leaves alone and says so. Tokens are those of `huggingface_hub`'s own login.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from im_datasets.common.errors import HubError
from im_datasets.common.version import __version__
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
from im_datasets.hub.parquet_configs import write_parts
from im_datasets.hub.plan import Change, Plan, Publication, change_of
from im_datasets.hub.repository import Snapshot, Target
from im_datasets.hub.secret_scan import Finding, find_secrets
from im_datasets.report.card_facts import CardFacts, as_codes, check_language, check_licence
from im_datasets.report.result_folder import REPORT
from im_datasets.scoring.record import ScoringRecord, without_paths
from im_datasets.selection.select import Selection

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class SecretsWarning(UserWarning):
    """Rows that look as if they held a secret are about to be made public."""


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
        target = Target.of(repo_id, private=private, create_pr=create_pr, revision=revision or "main")
        if collection:
            with explained(f"collection {collection}"):
                try_again(lambda: target.api.get_collection(collection), collection)
        options = {"include_dropped": include_dropped, "include_scores": include_scores, "scores_only": scores_only}
        parts = write_parts(selection, Path(folder), columns=columns, **options)
        branch = None if target.revision == "main" else target.revision
        facts = replace(given, repo_id=target.repo_id, revision=branch)
        publication = Publication(selection, parts, columns, facts, card, overwrite)
        publication.add_files(report=report)
        push = _Push(target, publication, message or f"{len(selection.kept):,} rows selected by im-datasets")
        pushed = push.plan_only() if dry_run else push.run()
        if collection and not dry_run:
            _add_to_collection(target, collection, pushed)
    return pushed


def _add_to_collection(target: "Target", collection: str, pushed: Pushed) -> None:
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


@dataclass
class _Push:
    """One push, from reading the repository to the commit."""

    target: Target
    publication: Publication
    message: str

    def plan_only(self) -> Pushed:
        """Say what would be done."""
        plan = self._plan()
        secrets = self._warn_of_secrets(plan)
        new_branch, written = not plan.snapshot.has_branch, bool(plan.writes)
        return self._pushed(plan, None, None, secrets=secrets, written=written, dry_run=True, new_branch=new_branch)

    def run(self) -> Pushed:
        """Do it, reading and merging anew as often as needed."""
        before: Snapshot | None = None
        sent: Plan | None = None
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

    def _plan(self) -> Plan:
        snapshot = self.target.read()
        if snapshot.private is False and self.target.private:
            raise HubError(
                f"{self.target.repo_id} is there and public, so private=True (--private) would not make it private; "
                "change its visibility in its settings, or push to another repository"
            )
        return Plan.of(self.publication, snapshot)

    def _warn_of_secrets(self, plan: Plan) -> list[Finding]:
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

    def _commit(self, plan: Plan) -> tuple["CommitInfo", bool]:
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

    def _pull_request_with(self, plan: Plan) -> tuple[str, str] | None:
        """Commit and address of an open pull request that already holds this very selection."""
        return try_again(lambda: self._find_pull_request(plan), self.target.repo_id)

    def _find_pull_request(self, plan: Plan) -> tuple[str, str] | None:
        api, repo_id = self.target.api, self.target.repo_id
        for request in api.get_repo_discussions(
            repo_id, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
        ):
            if request.title != self.message:
                continue
            oids = self.target.oids_at(f"refs/pr/{request.num}")
            same = all(change_of(path, file, oids).action == "keep" for path, file in plan.local.items())
            if same and not any(change.path in oids for change in plan.changes if change.action == "delete"):
                sha = api.dataset_info(repo_id, revision=f"refs/pr/{request.num}").sha
                return str(sha), request.url
        return None

    def _pushed(
        self,
        plan: Plan,
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
