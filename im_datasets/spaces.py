"""The shipped `evaluate` modules as Spaces of the Hub: what each consists of, and publishing them.

A Space holds a module's folder; only the modules' addresses in the card, and on demand the requirement that brings this
package, are written for the namespace. A second push of the same changes nothing.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from im_datasets.errors import HubError, ModuleNameError
from im_datasets.hub_errors import client_errors, explain, is_worth_retrying, seconds_to_wait
from im_datasets.metric_modules import module_names, module_path

FILES = ("README.md", "app.py", "requirements.txt")
"""What a Space holds beside the module itself."""

ATTEMPTS = 6
"""How often publishing one Space is tried."""

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
        package: A pip requirement that brings im-datasets, in place of the released version; an address such as
            ``git+https://…`` for a version that is not on PyPI.

    Raises:
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
        own = re.compile(r"^im-datasets\b.*$", flags=re.MULTILINE)
        texts["requirements.txt"] = own.sub(lambda _: package, texts["requirements.txt"])
    return Space(repo_id, {path: text.encode() for path, text in texts.items()})


def push_modules(
    namespace: str,
    *,
    only: Iterable[str] = (),
    private: bool = False,
    package: str | None = None,
    dry_run: bool = False,
) -> list[PushedSpace]:
    """Publish the shipped modules, each as a Space.

    Args:
        namespace: A user or an organisation that the token may write to.
        only: Names of modules, with or without ``im_``; none stands for all.
        private: Make the Spaces private; a Space that is there already stays as it is.
        package: A pip requirement that brings im-datasets, in place of the released version.
        dry_run: Say what would be pushed, and push nothing.

    Returns:
        What became of each Space, in the order of their names.

    Raises:
        ModuleNameError: No such module, or no name of the Hub.
        HubError: The Hub refuses or cannot be reached; the Spaces before are published.
    """
    names = sorted({module_path(name).name for name in only} or module_names())
    # All made before the first one is pushed: a bad name stops everything.
    spaces = [make_space(name, namespace, package) for name in names]
    if dry_run:
        return [PushedSpace(space.repo_id, "planned") for space in spaces]
    return [_publish(space, private=private) for space in spaces]


def _publish(space: Space, *, private: bool) -> PushedSpace:
    """Make the Space where there is none, and commit what differs; tried again while that may help."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _publish_once(space, private=private)
        except client_errors() as error:
            if attempt == ATTEMPTS or not is_worth_retrying(error):
                raise HubError(explain(error, space.repo_id)) from None
            time.sleep(seconds_to_wait(error, attempt))
    raise AssertionError("the last attempt returns or raises")


def _publish_once(space: Space, *, private: bool) -> PushedSpace:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    is_new = not api.repo_exists(space.repo_id, repo_type="space")
    if is_new:
        api.create_repo(space.repo_id, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
    before = api.repo_info(space.repo_id, repo_type="space").sha
    commit = api.create_commit(
        space.repo_id,
        [CommitOperationAdd(path, content) for path, content in space.files.items()],
        commit_message="Publish with im-datasets",
        repo_type="space",
    )
    status: Status = "created" if is_new else "unchanged" if commit.oid == before else "updated"
    return PushedSpace(space.repo_id, status, f"{api.endpoint}/spaces/{space.repo_id}", commit.oid)
