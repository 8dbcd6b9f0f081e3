"""A repository of the Hub, a dataset or a Space: what it holds now, and one commit on top of that.

Publishing reads what is there, asks for a plan, and sends all of it as one commit whose parent is what was read. When
the repository has moved meanwhile, it reads again and plans anew. Tokens are those of `huggingface_hub`'s own login.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from im_datasets.common.errors import HubError
from im_datasets.common.version import __version__
from im_datasets.hub.client import attempts, try_again
from im_datasets.hub.plan import Action, Plan, Snapshot

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Commit:
    """What became of a plan.

    Attributes:
        plan: What was sent, or what would be.
        sha: The commit at which the repository holds it; None where nothing was sent.
        pull_request: Address of the pull request that holds it; None where none was asked for, or needed.
        is_ours: Whether this call wrote it, or would; False where everything was there.
        new_branch: Whether the branch was made for it.
        new_repository: Whether the repository was made for it.
    """

    plan: Plan
    sha: str | None
    pull_request: str | None
    is_ours: bool
    new_branch: bool
    new_repository: bool = False


@dataclass(frozen=True)
class Repository:
    """Where something is published.

    Attributes:
        api: The Hub's client.
        repo_id: Owner and name.
        kind: What the Hub calls its type.
        private: Whether to make a new one private; None leaves that to the Hub's default for the owner.
        create_pr: Whether to open a pull request instead of writing to the branch.
        revision: Branch, or ``refs/pr/…`` of a pull request.
        texts: Files whose text a snapshot holds.
    """

    api: "HfApi"
    repo_id: str
    kind: Literal["dataset", "space"]
    private: bool | None = None
    create_pr: bool = False
    revision: str = "main"
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, repo_id: str, kind: Literal["dataset", "space"], **settings: Any) -> Self:
        """The repository of a name, in the namespace of whoever is logged in where none is given.

        Raises:
            HubError: The Hub may not be asked, nobody is logged in, or the name is none.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils._validators import validate_repo_id

        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE is set, so the Hub may not be asked; unset it to push")
        api = HfApi(library_name="im-datasets", library_version=__version__)
        if "/" not in repo_id:
            repo_id = f"{try_again(api.whoami, repo_id)['name']}/{repo_id}"
        validate_repo_id(repo_id)
        return cls(api, repo_id, kind, **settings)

    @property
    def _place(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.kind}

    def read(self) -> Snapshot:
        """What is there now."""
        return try_again(self._read, self.repo_id)

    def _read(self) -> Snapshot:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        has_branch = True
        try:
            info = self.api.repo_info(**self._place, revision=self.revision)
        except GatedRepoError:
            raise  # a RepositoryNotFoundError too, but of a repository that is there
        except RepositoryNotFoundError:
            return Snapshot()
        except RevisionNotFoundError:
            if self.revision.startswith("refs/"):
                raise  # a pull request is opened by the Hub, which numbers it
            info, has_branch = self.api.repo_info(**self._place, revision="main"), False
        oids = self._oids(str(info.sha))
        texts = {}
        for path in filter(oids.__contains__, self.texts):
            local = Path(self.api.hf_hub_download(**self._place, filename=path, revision=info.sha))
            texts[path] = local.read_bytes().decode("utf-8", errors="surrogateescape")
        return Snapshot(info.sha, info.private, oids, texts, has_branch)

    def _oids(self, revision: str) -> dict[str, str]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(**self._place, recursive=True, revision=revision)
        files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def oids_of(self, title: str, revision: str) -> dict[str, str] | None:
        """Path → digest of every file, as the last commit of a title left them.

        Args:
            title: Of the commit.
            revision: Where to look back from.

        Returns:
            None where nobody has committed anything yet; empty where no commit has that title.
        """

        def look_back() -> dict[str, str] | None:
            history = self.api.list_repo_commits(**self._place, revision=revision)
            if len(history) == 1:
                return None  # the Hub makes a repository with a first commit of its own
            commit = next((commit.commit_id for commit in history if commit.title == title), None)
            return self._oids(commit) if commit else {}

        return try_again(look_back, self.repo_id)

    def publish(
        self,
        plan_for: Callable[[Snapshot], Plan],
        title: str,
        *,
        announce: Callable[[Plan], None] = lambda _: None,
        dry_run: bool = False,
    ) -> Commit:
        """Make the repository what a plan wants, as one commit or one pull request.

        What somebody else changed meanwhile of the files that would be written is left alone. A commit whose answer
        was lost is found again and not made twice.

        Args:
            plan_for: Works out what has to change; called again with what is there after somebody else's commit.
            title: Of the commit or pull request.
            announce: Called once, with the first plan that is about to be sent.
            dry_run: Whether to send nothing, only to say what would be done.

        Raises:
            ConflictError: Somebody else changed what would have been written.
            Exception: What ``plan_for`` or the client raised.
        """
        before: Snapshot | None = None
        lost: Plan | None = None
        new_branch = new_repository = False
        for attempt in attempts(f"the Hub did not take the commit to {self.repo_id}", merges_anew=True):
            plan = plan_for(self.read())
            if dry_run:
                announce(plan)
                return Commit(plan, None, None, bool(plan.writes), not plan.snapshot.has_branch)
            if before is None and plan.snapshot.sha is None:
                self._create()  # not before there is a plan, which may be refused
                plan, new_repository = plan_for(self.read()), True
            if before is not None:
                plan.check_untouched(before)
            new_branch = new_branch or not plan.snapshot.has_branch
            request = self._find_pull_request(plan, title) if self.create_pr and plan.writes else None
            if request or not plan.writes:
                if not plan.snapshot.has_branch:
                    self._make_branch(plan.snapshot.sha)
                place: tuple[str | None, str | None] = request or (plan.snapshot.sha, None)
                # After a commit whose answer was lost, what is there now is what was sent.
                return Commit(lost or plan, *place, lost is not None, new_branch, new_repository)
            if before is None:
                before = plan.snapshot
                announce(plan)
            with attempt:
                return Commit(plan, *self._commit(plan, title), new_branch, new_repository)
            lost = plan if attempt.may_have_landed else None
        raise AssertionError("unreachable")  # pragma: no cover

    def _create(self) -> None:
        options: dict[str, Any] = {"private": self.private, "space_sdk": "gradio" if self.kind == "space" else None}
        try_again(lambda: self.api.create_repo(**self._place, **options, exist_ok=True), self.repo_id)

    def _make_branch(self, sha: str | None) -> None:
        branch: dict[str, Any] = {"branch": self.revision, "revision": sha}
        try_again(lambda: self.api.create_branch(**self._place, **branch, exist_ok=True), self.repo_id)

    def _commit(self, plan: Plan, title: str) -> tuple[str, str | None, bool]:
        """The commit, its pull request, and whether it is ours: the client sends none where all files are there."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        adds = [
            CommitOperationAdd(change.path, plan.contents[change.path])
            for change in plan.writes
            if change.action != Action.DELETE
        ]
        deletes = [CommitOperationDelete(change.path) for change in plan.writes if change.action == Action.DELETE]
        if not plan.snapshot.has_branch:
            # Before the branch is made, so that an upload that fails leaves none behind.
            self.api.preupload_lfs_files(**self._place, additions=adds, revision="main", free_memory=False)
            self._make_branch(plan.snapshot.sha)
        info = self.api.create_commit(
            **self._place,
            operations=[*adds, *deletes],
            commit_message=title,
            commit_description=f"Written by im-datasets {__version__}.",
            revision=self.revision,
            create_pr=self.create_pr,
            parent_commit=plan.snapshot.sha,
        )
        if self.create_pr and info.pr_revision is None:
            raise HubError(f"the Hub opened no pull request on {self.repo_id}; nothing was written, push again")
        # Set by the client on what it sent; where a later client has no such mark, the commit counts as ours.
        return info.oid, info.pr_url, any(getattr(operation, "_is_committed", True) for operation in adds)

    def _find_pull_request(self, plan: Plan, title: str) -> tuple[str, str] | None:
        """Commit and address of an open pull request that already holds this very plan."""

        def look() -> tuple[str, str] | None:
            kind: dict[str, Any] = {"discussion_type": "pull_request", "discussion_status": "open"}
            for request in self.api.get_repo_discussions(**self._place, **kind):
                revision = f"refs/pr/{request.num}"
                if request.title == title and plan.is_carried_out_in(self._oids(revision)):
                    info = self.api.repo_info(**self._place, revision=revision)
                    return str(info.sha), request.url
            return None

        return try_again(look, self.repo_id)
