"""What lies in a repository beside what the manifest names, and whether it is the one that was pushed to."""

from collections.abc import Iterator

from im_datasets.data.hub_repository import CARD
from im_datasets.hub.card_merge import read_front_matter, split_card
from im_datasets.hub.client import client_errors, try_again
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.published import ATTEMPTS, PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.report.configs import MANIFEST

_OURS = (CARD, MANIFEST, ".gitattributes")
_TOOLS = (".git/", ".cache/")
"""What git and the Hub's client keep in a local copy."""


def check_repository(published: PublishedSelection) -> Iterator[Check]:
    """Files and configs that the manifest does not name; others may have put them into a shared repository."""
    manifest = published.manifest
    if manifest is None:
        return
    if published.commit is None:
        reason = f"that it was pushed to {manifest.repo_id}: this is a folder"
        yield Check("repository", Outcome.NOT_CHECKED, reason, ("repo_id",))
    elif published.name != manifest.repo_id:
        reason = f"it was pushed to {manifest.repo_id}, so that {published.name} is a copy of it"
        yield Check("repository", Outcome.NOT_CHECKED, reason, ("repo_id",))
    else:
        yield verdict("repository", [], f"it was pushed to {published.name}", ("repo_id",))
    foreign = _foreign_files(published, manifest)
    if foreign is None:
        yield Check("repository", Outcome.NOT_CHECKED, "files that the manifest does not name: the Hub cannot be asked")
    elif foreign:
        reason = f"{len(foreign)} files that the manifest does not name: {few(foreign)}"
        yield Check("repository", Outcome.NOT_CHECKED, reason)
    if configs := _foreign_configs(published, manifest):
        reason = f"{len(configs)} configs that the manifest does not name: {few(configs)}"
        yield Check("repository", Outcome.NOT_CHECKED, reason)


def _foreign_files(published: PublishedSelection, manifest: Manifest) -> list[str] | None:
    """Paths that were not pushed by im-datasets; None where nobody can tell."""
    if published.is_from_cache:
        return None
    if published.commit is None:
        folder = published.folder
        paths = [
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()
        ]
    else:
        from huggingface_hub import HfApi

        def listed() -> list[str]:
            return HfApi().list_repo_files(published.name, repo_type="dataset", revision=published.commit)

        try:
            paths = try_again(listed, published.name, ATTEMPTS)
        except client_errors():
            return None
    ours = {*_OURS, *manifest.files}
    # On the Hub nothing else puts files there.
    tools = _TOOLS if published.commit is None else ()
    return sorted(path for path in paths if path not in ours and not path.startswith(tools))


def _foreign_configs(published: PublishedSelection, manifest: Manifest) -> list[str]:
    """Names of configs and their descriptions in the card's front matter that are not of the selection."""
    fields = read_front_matter(split_card((published.card or "").replace("\r\n", "\n"))[0])
    entries = [fields.get(name) for name in ("configs", "dataset_info")]
    listed = [entry for value in entries for entry in (value if isinstance(value, list) else [value])]
    names = [str(entry.get("config_name", "default")) for entry in listed if isinstance(entry, dict)]
    # The one config of a publication is described without its name.
    known = {*manifest.configs, *(["default"] if len(manifest.configs) == 1 else [])}
    return [name for name in dict.fromkeys(names) if name not in known]
