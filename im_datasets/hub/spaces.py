"""The shipped `evaluate` modules as Spaces of the Hub: what each consists of, and publishing them.

A Space holds a module's folder; only the modules' addresses in the card, and on demand the requirement that brings this
package, are written for the namespace. A second push of the same changes nothing, and what somebody else wrote there
stays unless told otherwise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from im_datasets.common.errors import ConflictError, HubError, ModuleNameError
from im_datasets.hub.client import explained
from im_datasets.hub.plan import Plan, Snapshot
from im_datasets.hub.repository import Repository
from im_datasets.hub.secret_scan import looks_like
from im_datasets.indicators.metric import module_names, module_path

FILES = ("README.md", "app.py", "requirements.txt")
"""What a Space holds beside the module itself."""

MESSAGE = "Publish with im-datasets"
"""Title of every commit made here, by which the last one is found again."""

_LOGIN = re.compile(r"([\w+.-]+)://([^/\s@]+)@")
"""Scheme and login of an address; a ref after the path is none."""

Status = Literal["planned", "created", "updated", "unchanged"]


@dataclass(frozen=True)
class Space:
    """A module as it is published.

    Attributes:
        repo_id: The Space's id.
        files: Path → content.
    """

    repo_id: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class PushedSpace:
    """What became of a Space.

    Attributes:
        repo_id: The Space's id.
        status: ``"planned"`` in a dry run.
        url: The page; empty in a dry run.
        commit: The commit that the Space is at; empty in a dry run.
    """

    repo_id: str
    status: Status
    url: str = ""
    commit: str = ""


def make_space(name: str, namespace: str, package: str | None = None) -> Space:
    """The files of a module's Space.

    Args:
        name: A module's name, with or without ``im_``.
        namespace: A user or an organisation of the Hub.
        package: As for ``push_modules``.

    Raises:
        HubError: The requirement holds what looks like a secret, or more than one line.
        ModuleNameError: No such module, or no name of the Hub.

    Example:
        >>> space = make_space("mtld", "me")
        >>> space.repo_id, sorted(space.files)
        ('me/im_mtld', ['README.md', 'app.py', 'im_mtld.py', 'requirements.txt'])
    """
    if not re.fullmatch(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", namespace):
        raise ModuleNameError(f"{namespace!r} is no user or organisation of the Hub; pass its name alone, as in 'me'")
    folder = module_path(name)
    repo_id = f"{namespace}/{folder.name}"
    texts = {path: (folder / path).read_text(encoding="utf-8") for path in (*FILES, f"{folder.name}.py")}
    texts["README.md"] = re.sub(r'"metrics/(im_\w+)"', rf'"{namespace}/\1"', texts["README.md"])
    if package is not None:
        _check_package(package)
        own = re.compile(r"^im-datasets\b.*$", flags=re.MULTILINE)
        # By a function: in a text, a backslash of the requirement would be an escape.
        texts["requirements.txt"] = own.sub(lambda _: package, texts["requirements.txt"])
    return Space(repo_id, {path: text.encode() for path, text in texts.items()})


def _check_package(package: str) -> None:
    # A variable that the Space fills in is none.
    logins = [
        (scheme, login) for scheme, login in _LOGIN.findall(package) if not re.fullmatch(r"[${}\w]*\$\{\w+\}", login)
    ]
    # The login of ssh is a plain name, such as git; before https it is a token.
    if looks_like(package) or any(":" in login or not scheme.endswith("ssh") for scheme, login in logins):
        raise HubError(
            "the package's address holds a login or token, and a Space shows its requirements; leave it out, or put it "
            "into a secret of the Space and write ${NAME} in its place"
        )
    if not package.strip() or len(package.splitlines()) > 1:
        raise HubError(f"{package!r} is no pip requirement; pass one on a single line")


def push_modules(
    namespace: str,
    *,
    only: Iterable[str] = (),
    private: bool = False,
    package: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[PushedSpace]:
    """Publish the shipped modules, each as a Space.

    Args:
        namespace: A user or an organisation that the token may write to.
        only: Names of modules, with or without ``im_``; none stands for all.
        private: Make the Spaces private; a Space that is there already stays as it is.
        package: A pip requirement that brings im-datasets, in place of the released version; an address such as
            ``git+https://…`` for a version that is not on PyPI. Everybody can read it there: no token in it.
        overwrite: Whether files of a Space that somebody else wrote or changed may be replaced.
        dry_run: Say what would be pushed, and push nothing.

    Returns:
        What became of each Space, in the order of their names.

    Raises:
        ConflictError: A file of a Space is not as im-datasets left it; the Spaces before are published.
        HubError: The Hub refuses or cannot be reached; the Spaces before are published. Or the requirement holds what
            looks like a secret.
        ModuleNameError: No such module, or no name of the Hub.
    """
    names = sorted({module_path(name).name for name in only} or module_names())
    # All made before the first one is pushed: a bad name stops everything.
    spaces = [make_space(name, namespace, package) for name in names]
    if dry_run:
        return [PushedSpace(space.repo_id, "planned") for space in spaces]
    return [_publish(space, private=private, overwrite=overwrite) for space in spaces]


def _publish(space: Space, *, private: bool, overwrite: bool) -> PushedSpace:
    """Make the Space where there is none, and commit what differs."""
    with explained(space.repo_id):
        repository = Repository.of(space.repo_id, "space", private=private or None)

        def plan(snapshot: Snapshot) -> Plan:
            plan = Plan.between(snapshot, space.files)
            pushed = repository.oids_of(MESSAGE, snapshot.sha) if snapshot.sha and not overwrite else None
            if pushed is not None and (foreign := plan.foreign({path: (oid,) for path, oid in pushed.items()})):
                raise ConflictError(
                    f"{', '.join(sorted(foreign))} in the Space {space.repo_id} is not as im-datasets left it; "
                    "publish under another name, or pass overwrite=True (--overwrite) to replace it"
                )
            return plan

        commit = repository.publish(plan, MESSAGE)
    status: Status = "created" if commit.new_repository else "updated" if commit.is_ours else "unchanged"
    return PushedSpace(space.repo_id, status, f"{repository.api.endpoint}/spaces/{space.repo_id}", str(commit.sha))
