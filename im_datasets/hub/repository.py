"""A dataset repository as it is now, and one commit on top of that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import HubError
from im_datasets.common.version import __version__
from im_datasets.hub.client import (
    try_again,
)
from im_datasets.hub.manifest import Manifest
from im_datasets.report.card import CARD, STANDALONE
from im_datasets.report.configs import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Snapshot:
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
class Target:
    """Where a push goes."""

    api: "HfApi"
    repo_id: str
    private: bool | None
    create_pr: bool
    revision: str

    @classmethod
    def of(cls, repo_id: str, **settings: Any) -> "Target":
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
        return cls(api, repo_id, **settings)

    def read(self) -> Snapshot:
        """What is there now."""
        return try_again(self._read, self.repo_id)

    def _read(self) -> Snapshot:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        has_branch = True
        try:
            info = self.api.dataset_info(self.repo_id, revision=self.revision)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return Snapshot()
        except RevisionNotFoundError:
            if self.revision.startswith("refs/"):
                raise
            info, has_branch = self.api.dataset_info(self.repo_id, revision="main"), False
        oids = self.oids_at(str(info.sha))
        manifest = self.text(MANIFEST, info.sha) if MANIFEST in oids else None
        return Snapshot(
            sha=info.sha,
            private=info.private,
            oids=oids,
            card=self.text(CARD, info.sha) if CARD in oids else None,
            manifest=read_manifest(manifest),
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


def read_manifest(text: str | None) -> Manifest | None:
    """What was last pushed; None where that file is not ours, which is found out when it would be replaced."""
    try:
        return None if text is None else Manifest.from_json(text)
    except HubError:
        return None
