"""Repositories of the loopback Hub: blobs, commits, branches, pull requests, collections; no HTTP."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from itertools import count
from pathlib import Path
from threading import RLock
from typing import Any

import yaml

WRITE, READ, PullRequestOnly = "write", "read", "pull-request"
"""What a token may do."""

LFS_SUFFIXES = (".parquet", ".arrow", ".png", ".gz", ".zip", ".bin", ".safetensors")
FRONT_MATTER = re.compile(r"\s*---[\r\n]+([\S\s]*?)[\r\n]+---(?:\r\n|\n|$)")
"""As `huggingface_hub` finds it."""

LFS_BYTES = 10 * 2**20
_NUMBERS = count(1)
"""Makes every commit of a process another one, so that no cache takes one for another."""

GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"


class Refused(Exception):  # noqa: N818 - an answer, not an error of the program
    """An answer other than 200."""

    def __init__(self, status: int, code: str | None, message: str, body: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.body = status, code, message, body


@dataclass(frozen=True)
class User:
    """Whom a token stands for."""

    name: str
    role: str = WRITE


@dataclass(frozen=True)
class File:
    """A file of a commit; ``lfs`` files are kept outside git and known by their sha256."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        """Of the content, or for an LFS file of its pointer."""
        content = self.content
        if self.lfs:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
            )
        return sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def known_oid(self) -> str:
        """By which a client tells that it has not changed."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A whole tree and what came before it."""

    sha: str
    parent: str | None
    files: Mapping[str, File]
    title: str
    author: str


@dataclass
class PullRequest:
    """One open pull request; its branch is ``refs/pr/<num>``."""

    num: int
    title: str
    author: str
    status: str = "open"


@dataclass
class Repo:
    """A repository of one kind."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch, pull request, tag or sha stands for."""
        sha = self.refs.get(revision.removeprefix("refs/heads/"), revision)
        if sha not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[sha]

    def history(self, revision: str = "main") -> list[Commit]:
        """Newest first."""
        commit: Commit | None = self.commit_at(revision)
        found = []
        while commit:
            found.append(commit)
            commit = self.commits.get(commit.parent) if commit.parent else None
        return found


class Store:
    """All repositories, uploads and users of one Hub."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.xet_folder: Path | None = None
        self.xet: dict[str, str] = {}
        self.collections: dict[str, dict[str, Any]] = {}

    def repo(self, kind: str, name: str, user: User | None = None) -> Repo:
        """A repository that this user may see."""
        repo = self.repos.get((kind, name))
        if repo is None or (repo.private and not self.may_see(user, repo)):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if repo.gated:
            raise Refused(401, "GatedRepo", f"Access to {kind} {name} is restricted.")
        return repo

    def may_see(self, user: User | None, repo: Repo) -> bool:
        return user is not None and user.name == repo.name.partition("/")[0]

    def create(self, kind: str, name: str, *, private: bool = False, gated: bool = False) -> Repo:
        """A new repository with the commit that the Hub makes itself."""
        with self.lock:
            if (kind, name) in self.repos:
                raise Refused(
                    409, None, "You already created this dataset repo", {"url": name, "error": "already exists"}
                )
            repo = self.repos[kind, name] = Repo(kind, name, private, gated)
            self.write(repo, "main", {".gitattributes": File(GITATTRIBUTES, lfs=False)}, "initial commit", "hub")
            return repo

    def write(self, repo: Repo, branch: str, files: Mapping[str, File], title: str, author: str) -> Commit:
        """Put a new tree at the end of a branch."""
        with self.lock:
            parent = repo.refs.get(branch)
            seed = f"{repo.kind}/{repo.name} {parent} {next(_NUMBERS)} {title}"
            commit = Commit(sha1(seed.encode()).hexdigest(), parent, dict(files), title, author)
            repo.commits[commit.sha] = commit
            repo.refs[branch] = commit.sha
            return commit

    def put(
        self, name: str, files: Mapping[str, bytes | None], *, kind: str = "dataset", branch: str = "main"
    ) -> Commit:
        """Somebody's commit: change these files, or delete where None."""
        repo = self.repos.get((kind, name)) or self.create(kind, name)
        tree = dict(repo.commit_at(branch).files)
        for path, content in files.items():
            if content is None:
                del tree[path]
            else:
                tree[path] = File(content, lfs=upload_mode(path, len(content)) == "lfs")
        return self.write(repo, branch, tree, "by hand", "somebody")

    def read(self, name: str, path: str, *, kind: str = "dataset", revision: str = "main") -> bytes:
        return self.repos[kind, name].commit_at(revision).files[path].content

    def paths(self, name: str, *, kind: str = "dataset", revision: str = "main") -> list[str]:
        return sorted(self.repos[kind, name].commit_at(revision).files)

    def commit(self, repo: Repo, branch: str, user: User, lines: list[dict[str, Any]], *, create_pr: bool) -> dict:
        """Apply the operations of one commit, all or none."""
        with self.lock:
            if user.role == READ or (user.role == PullRequestOnly and not create_pr):
                raise Refused(403, None, "You don't have the rights to write to this repo.")
            header = next(line["value"] for line in lines if line["key"] == "header")
            base = repo.commit_at(branch)
            parent = header.get("parentCommit")
            if parent and parent != base.sha and not create_pr:
                raise Refused(412, None, "A commit has happened since. Please refresh and try again.")
            tree = dict(repo.commits[parent].files if parent else base.files)
            for line in lines:
                self._apply(tree, line["key"], line["value"])
            check_card(tree)
            if not create_pr:
                done = self.write(repo, branch, tree, header["summary"], user.name)
                return {"commitOid": done.sha, "commitUrl": f"/datasets/{repo.name}/commit/{done.sha}"}
            request = PullRequest(len(repo.pull_requests) + 1, header["summary"], user.name)
            repo.pull_requests.append(request)
            repo.refs[f"refs/pr/{request.num}"] = parent or base.sha
            done = self.write(repo, f"refs/pr/{request.num}", tree, header["summary"], user.name)
            url = f"/datasets/{repo.name}/commit/{done.sha}"
            return {
                "commitOid": done.sha,
                "commitUrl": url,
                "pullRequestUrl": f"/datasets/{repo.name}/discussions/{request.num}",
            }

    def _apply(self, tree: dict[str, File], key: str, value: dict[str, Any]) -> None:
        from base64 import b64decode

        if key == "file":
            tree[value["path"]] = File(b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            self._fetch_from_xet(value["oid"], value["size"])
            if value["oid"] not in self.lfs:
                raise Refused(400, None, f"LFS object {value['oid']} was never uploaded")
            tree[value["path"]] = File(self.lfs[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if value["path"] not in tree:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
            del tree[value["path"]]
        elif key == "deletedFolder":
            folder = value["path"].rstrip("/") + "/"
            for path in [path for path in tree if path.startswith(folder)]:
                del tree[path]
        elif key != "header":
            raise Refused(400, None, f"unknown operation {key}")

    def _fetch_from_xet(self, oid: str, size: int) -> None:
        from hub_server.xet import read_back

        if self.xet_folder and oid not in self.lfs:
            self.xet[oid], self.lfs[oid] = read_back(self.xet_folder, oid, size)


def upload_mode(path: str, size: int) -> str:
    """Whether the Hub keeps a file in git or outside it."""
    return "lfs" if path.endswith(LFS_SUFFIXES) or size > LFS_BYTES else "regular"


def check_card(tree: Mapping[str, File]) -> None:
    """Refuse a card whose front matter is no YAML, as the Hub does."""
    if "README.md" in tree and (problem := card_problem(tree["README.md"].content.decode())):
        raise Refused(400, None, problem)


def card_problem(card: str) -> str | None:
    """What is wrong with a card's front matter; None where nothing is."""
    block = FRONT_MATTER.match(card)
    if not block:
        return None
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return f"YAML metadata: {error}"
    if not isinstance(data, dict | None):
        return "YAML metadata is no mapping"
    for name in ("language", "tags", "size_categories", "task_categories", "source_datasets"):
        value = (data or {}).get(name)
        if value is not None and not (isinstance(value, str) or all(isinstance(v, str) for v in value)):
            return f'"{name}" must be a string or an array of strings'
    return None


@contextmanager
def serve(files: Mapping[str, bytes], name: str = "owner/name") -> Iterator[tuple[str, str]]:
    """Serve these files as one dataset repository, beside ``owner/gated``, which refuses.

    Yields:
        The address, for ``HF_ENDPOINT``, and the sha of its commit.
    """
    from hub_server.server import HubServer

    with HubServer() as hub:
        sha = hub.store.put(name, dict(files)).sha
        hub.store.create("dataset", "owner/gated", gated=True)
        yield hub.endpoint, sha


def ndjson(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines() if line.strip()]
