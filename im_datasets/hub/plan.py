"""What a repository holds and what it shall hold → the changes between the two. Plain data, without the network."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from im_datasets.common.errors import ConflictError
from im_datasets.report.configs import Published


class Action(StrEnum):
    """What becomes of a file."""

    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True)
class Change:
    """What a push does to one file.

    Attributes:
        path: In the repository.
        action: ``add``, ``update``, ``delete`` or ``keep``.
        size: In bytes, after the push; 0 when deleted.
    """

    path: str
    action: Action
    size: int


@dataclass(frozen=True)
class Snapshot:
    """A branch as it was at one moment.

    Attributes:
        sha: Its commit; None where the repository is not there.
        private: Whether the repository is private; None where it is not there.
        oids: Path → sha256 of a big file, git's sha1 of a small one.
        texts: Path → text, of those files that were read.
        has_branch: Whether the branch is there; else this is ``main``, from which it will be made.
    """

    sha: str | None = None
    private: bool | None = None
    oids: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    has_branch: bool = True


@dataclass(frozen=True)
class Plan:
    """What has to be done to a snapshot.

    Attributes:
        snapshot: What is there.
        contents: Path → content, of every file that shall be there.
        files: The same paths → digests and size.
        changes: What is done to each of them, and to those that go.
        merged: Files whose content takes in what is there, so that they may change while a push is under way.
    """

    snapshot: Snapshot
    contents: Mapping[str, Path | bytes]
    files: Mapping[str, Published]
    changes: list[Change]
    merged: Collection[str] = ()

    @classmethod
    def between(
        cls,
        snapshot: Snapshot,
        contents: Mapping[str, Path | bytes],
        files: Mapping[str, Published] | None = None,
        *,
        obsolete: Collection[str] = (),
        merged: Collection[str] = (),
    ) -> Self:
        """Compare what shall be there with what is, and delete what is ``obsolete``.

        Digests and sizes of ``files`` are those that are known already; the other arguments are the attributes.
        """
        digests = {path: (files or {}).get(path) or _describe(content) for path, content in contents.items()}
        changes = [_change(path, file, snapshot.oids) for path, file in digests.items()]
        changes += [Change(path, Action.DELETE, 0) for path in obsolete if path in snapshot.oids]
        return cls(snapshot, contents, digests, changes, merged)

    @property
    def writes(self) -> list[Change]:
        """The changes that do something."""
        return [change for change in self.changes if change.action != Action.KEEP]

    def is_carried_out_in(self, oids: Mapping[str, str]) -> bool:
        """Whether a revision whose files have these digests needs no change any more."""
        actions = {_change(path, file, oids).action for path, file in self.files.items()}
        deleted = [change.path for change in self.changes if change.action == Action.DELETE]
        return actions == {Action.KEEP} and not any(path in oids for path in deleted)

    def foreign(self, pushed: Mapping[str, Collection[str | None]]) -> list[str]:
        """The files to be replaced or deleted that are not as they were last pushed, but for merged ones.

        Args:
            pushed: Path → its digests at that time.
        """
        gone = [change.path for change in self.writes if change.action != Action.ADD and change.path not in self.merged]
        return [path for path in gone if self.snapshot.oids[path] not in pushed.get(path, ())]

    def check_untouched(self, before: Snapshot) -> None:
        """Refuse when files to be written, but for merged ones, changed while this push was under way.

        Raises:
            ConflictError: Somebody else's commit changed one.
        """
        paths = [change.path for change in self.writes if change.path not in self.merged]
        touched = [path for path in paths if before.oids.get(path) != self.snapshot.oids.get(path)]
        if touched:
            raise ConflictError(
                f"somebody else changed {', '.join(touched)} while this push was under way (commit "
                f"{self.snapshot.sha}); look at it, then push again"
            )


def _change(path: str, file: Published, oids: Mapping[str, str]) -> Change:
    """What makes a file as it shall be; the Hub names a big one by its sha256, a small one by git's sha1."""
    oid = oids.get(path)
    action = Action.ADD if oid is None else Action.KEEP if oid in (file.sha256, file.git_sha1) else Action.UPDATE
    return Change(path, action, file.size)


def _describe(content: Path | bytes) -> Published:
    return Published.of(content) if isinstance(content, bytes) else Published.of_file(content)
