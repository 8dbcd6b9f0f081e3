"""Selection → one commit, or one pull request, in a dataset repository."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from pathlib import Path

from im_datasets.common.errors import HubError
from im_datasets.common.storage import temporary_folder
from im_datasets.data.hub_repository import CARD
from im_datasets.hub.client import client_errors, explain, explained, try_again
from im_datasets.hub.parquet_configs import write_data_files
from im_datasets.hub.plan import Change, Plan, Snapshot
from im_datasets.hub.publication import READ, Publication
from im_datasets.hub.repository import Commit, Repository
from im_datasets.hub.secret_scan import Finding, find_secrets, find_secrets_in_files
from im_datasets.report.card_facts import CardFacts, as_codes, check_language, check_licence
from im_datasets.report.result_folder import REPORT
from im_datasets.scoring.record import ScoringRecord, without_paths
from im_datasets.selection.select import Selection


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
        changes: Every file of the selection and what was, or would have been, done to it.
        card_diff: How the card changed, as a unified diff; empty where it did not.
        secrets: Rows and texts of the card and the manifest that look as if they held a secret, where they were made
            public.
        dry_run: Whether nothing was sent.
        new_branch: Whether the branch was, or would have been, made.
        dropped_media: Images, sounds and the like that were left out, as ``drop_media`` asks.
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
    dropped_media: int = 0


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
    media_from: str | Path | None = None,
    drop_media: bool = False,
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
        media_from: Whose files may be published where a row names an image, sound or the like without its bytes: a
            folder, or ``owner/name@commit`` of a dataset on the Hub. None is what was handed to ``mine`` in this
            process. A row that names any other file or address is refused, as it may come from a stranger.
        drop_media: Whether such media are left out, as nulls, instead.
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
    facts = CardFacts(
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
    for code in facts.language:
        check_language(code)
    if create_pr and revision not in (None, "main"):
        raise HubError(f"create_pr opens a pull request against main, revision={revision!r} writes there; pass one")
    if scores_only and report:
        raise HubError("scores_only leaves all texts out, and the report shows some (--with-report); pass one of them")
    record = record or selection.record
    if report and record is None:
        raise HubError("the report tells how the scores came about, and no record does; pass record=, or no report")
    # Paths tell of this machine, and mean nothing on another one.
    selection = replace(selection, record=record and without_paths(record))
    with explained(repo_id), temporary_folder() as folder:
        place = {"private": private, "create_pr": create_pr, "revision": revision or "main"}
        repository = Repository.of(repo_id, "dataset", texts=READ, **place)
        if collection:
            # Looked for first: a wrong slug would be found out when the commit is there.
            with explained(f"collection {collection}"):
                try_again(lambda: repository.api.get_collection(collection), collection)
        options = {"include_dropped": include_dropped, "include_scores": include_scores, "scores_only": scores_only}
        options |= {"drop_media": drop_media}
        data = write_data_files(selection, folder, columns=columns, media_from=media_from, **options)
        branch = None if repository.revision == "main" else repository.revision
        facts = replace(facts, repo_id=repository.repo_id, revision=branch)
        publication = Publication(selection, data, columns, facts, card, overwrite)
        publication.add_files(report=report)
        secrets: list[Finding] = []
        commit = repository.publish(
            lambda snapshot: _plan(repository, publication, snapshot),
            message or f"{len(selection.kept):,} rows selected by im-datasets",
            announce=lambda plan: secrets.extend(_warn_of_secrets(publication, plan, private)),
            dry_run=dry_run,
        )
        pushed = replace(_pushed(repository, commit, secrets, dry_run=dry_run), dropped_media=data.dropped_media)
        if collection and not dry_run:
            _add_to_collection(repository, collection, pushed)
    return pushed


def _add_to_collection(repository: Repository, collection: str, pushed: Pushed) -> None:
    """Add the dataset to a collection.

    Raises:
        HubError: That failed, and the message says that the selection is there.
    """
    api, repo_id = repository.api, repository.repo_id
    try:
        try_again(lambda: api.add_collection_item(collection, repo_id, "dataset", exists_ok=True), collection)
    except client_errors() as error:
        raise HubError(
            f"{pushed.url} holds the selection (commit {(pushed.commit or '')[:8]}), but adding it to the collection "
            f"failed: {explain(error, collection)}; push again for that, no file is sent twice"
        ) from None


def _plan(repository: Repository, publication: Publication, snapshot: Snapshot) -> Plan:
    if snapshot.private is False and repository.private:
        raise HubError(
            f"{repository.repo_id} is there and public, so private=True (--private) would not make it private; "
            "change its visibility in its settings, or push to another repository"
        )
    return publication.plan(snapshot)


def _warn_of_secrets(publication: Publication, plan: Plan, private: bool | None) -> list[Finding]:
    """Look through what will be public; a report shows rows of both sides."""
    if private if plan.snapshot.private is None else plan.snapshot.private:
        return []
    selection, data = publication.selection, publication.data
    sides = {"kept": selection.kept, "dropped": selection.dropped}
    public = [rows for name, rows in sides.items() if name in data.configs or REPORT in data.files]
    in_rows = [finding for rows in public for finding in find_secrets(rows)]
    # Card and manifest: with licence link, tags, command line and settings. The report shows nothing beyond them.
    texts = {path: text.decode("utf-8", "replace") for path, text in plan.contents.items() if isinstance(text, bytes)}
    findings = [*in_rows, *find_secrets_in_files(texts)]
    for finding in findings:
        remedy = "take it out of what the card or the run states" if finding.is_file else "remove such rows"
        message = f"about to be public: {finding}; {remedy} before pushing"
        # Shown where `push_selected` is called, which comes here through `publish` and its `announce`.
        warnings.warn(message, SecretsWarning, stacklevel=5)
    return findings


def _pushed(repository: Repository, commit: Commit, secrets: list[Finding], *, dry_run: bool) -> Pushed:
    number = commit.pull_request.rstrip("/").rpartition("/")[2] if commit.pull_request else None
    return Pushed(
        repo_id=repository.repo_id,
        url=commit.pull_request or f"{repository.api.endpoint}/datasets/{repository.repo_id}",
        commit=commit.sha,
        pull_request=commit.pull_request,
        revision=f"refs/pr/{number}" if number else repository.revision,
        changed=commit.is_ours or commit.new_branch,
        changes=commit.plan.changes,
        card_diff=_card_diff(commit.plan),
        secrets=secrets,
        dry_run=dry_run,
        new_branch=commit.new_branch,
    )


def _card_diff(plan: Plan) -> str:
    """How the card changes, as a unified diff."""
    content = plan.contents[CARD]
    assert isinstance(content, bytes)  # noqa: S101 - the card is a text
    old = plan.snapshot.texts.get(CARD, "").splitlines(keepends=True)
    new = content.decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(unified_diff(old, new, f"{CARD} (there)", f"{CARD} (pushed)"))
