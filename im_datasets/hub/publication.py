"""Selection → the files of its repository, the card merged into the one there, and what a push refuses to change."""

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from im_datasets.common.errors import ConflictError, HubError
from im_datasets.common.version import __version__
from im_datasets.data.hub_repository import CARD, STANDALONE
from im_datasets.hub.card_merge import merge_card, read_front_matter, split_card
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import DataFiles
from im_datasets.hub.plan import Plan, Snapshot
from im_datasets.hub.terms import fill_facts, read_facts, source_facts
from im_datasets.report.card import CONFIGS, Card, render_card
from im_datasets.report.card_blocks import block_digests
from im_datasets.report.card_facts import CardFacts, check_licence, missing_facts
from im_datasets.report.configs import MANIFEST, Published
from im_datasets.report.page import write_report
from im_datasets.report.result_folder import REPORT, describe_selection, write_figures
from im_datasets.selection.select import Selection

READ = (CARD, MANIFEST, STANDALONE)
"""Files of the repository whose text a publication needs to know."""


@dataclass
class Publication:
    """A selection as it shall be published.

    Attributes:
        selection: With its record, without paths of this machine.
        data: The Parquet files, in a folder that figures and report join.
        columns: As for ``push_selected``, like ``card`` and ``overwrite``.
        facts: What the publisher gave for the card.
        source: What the card of the rows' source states.
    """

    selection: Selection
    data: DataFiles
    columns: str
    facts: CardFacts
    card: str | None
    overwrite: bool
    source: CardFacts | None = field(init=False)

    def __post_init__(self) -> None:
        self.source = source_facts(self.selection.record)

    def add_files(self, *, report: bool) -> None:
        """Put figures, and a report of the record without paths, beside the shards."""
        folder, record = self.data.folder, self.selection.record
        paths = write_figures(self.selection, folder)
        if report and record:
            write_report(self.selection, record, folder / REPORT)
            paths.append(REPORT)
        self.data.files.update({path: Published.of_file(folder / path) for path in paths})

    def plan(self, snapshot: Snapshot) -> Plan:
        """What has to change in a repository.

        Raises:
            HubError: Licence or language were not given, and no card states them.
            ConflictError: A file that would be replaced or deleted is not as im-datasets left it, the card cannot be
                merged with, or ``load_dataset`` would not give the selection, or no longer what it gives now.
        """
        last = _last_push(snapshot)
        contents = self._contents(snapshot, last)
        pushed = last.files if last else {}
        obsolete = [path for path in pushed if path not in contents]
        plan = Plan.between(snapshot, contents, self.data.files, obsolete=obsolete, merged=[CARD])
        _check_standalone(snapshot)
        if not self.overwrite:
            digests = {path: (file.sha256, file.git_sha1) for path, file in pushed.items()}
            if last:
                # It holds no digest of itself; that it can be read as ours has to do.
                digests[MANIFEST] = (snapshot.oids[MANIFEST], None)
            if foreign := plan.foreign(digests):
                raise ConflictError(
                    f"{', '.join(foreign)} in the repository is not as im-datasets left it; push to another repository "
                    "or branch, or pass overwrite=True (--overwrite) to replace it"
                )
            if last is None:
                _check_hidden(plan)
        return plan

    def _contents(self, snapshot: Snapshot, last: Manifest | None) -> dict[str, Path | bytes]:
        """Path → content of every file."""
        rows, data = self.selection, self.data
        existing = snapshot.texts.get(CARD)
        facts = fill_facts(self.facts, [read_facts(card) for card in (existing, self.card) if card], self.source)
        if hints := missing_facts(facts.license, facts.language):
            raise HubError("; ".join(hints) + ". Where nobody knows, 'unknown' is a licence and 'und' a language")
        check_licence(str(facts.license))  # it may be of a card, which nobody has checked
        fresh = render_card(
            rows,
            rows.record,
            facts,
            configs=data.configs,
            infos=data.infos,
            digests={path: file.sha256 for path, file in data.files.items()},
            original=self.columns == "original",
        )
        manifest = Manifest(
            package_version=__version__,
            repo_id=str(facts.repo_id),
            selection=describe_selection(rows),
            record=rows.record,
            columns=self.columns,
            configs=data.configs,
            files=dict(sorted(data.files.items())),
            card={"facts": asdict(facts), "blocks": block_digests(fresh.blocks), "metadata": fresh.metadata},
        )
        texts = {CARD: self._merged(fresh, existing, last), MANIFEST: manifest.to_json()}
        # A card may hold bytes that are no UTF-8; they stay as they were read.
        encoded = {path: text.encode("utf-8", errors="surrogateescape") for path, text in texts.items()}
        return {**{path: data.folder / path for path in data.files}, **encoded}

    def _merged(self, fresh: Card, existing: str | None, last: Manifest | None) -> str:
        """The card in what people wrote: around the one that is there, else around the one that was given."""
        if existing is None:
            return merge_card(self.card or "", fresh, configs=list(CONFIGS), overwrite=True)
        if last is None:
            return merge_card(existing, fresh, overwrite=self.overwrite)
        return merge_card(
            existing,
            fresh,
            published=last.card.get("blocks"),
            claimed=last.card.get("metadata"),
            configs=list(last.configs),
            overwrite=self.overwrite,
        )


def _last_push(snapshot: Snapshot) -> Manifest | None:
    """What was last pushed; None where that file is not ours, which is found out when it would be replaced."""
    try:
        return Manifest.from_json(snapshot.texts[MANIFEST]) if MANIFEST in snapshot.texts else None
    except HubError:
        return None


def _check_standalone(snapshot: Snapshot) -> None:
    """Refuse where another file overrules the card, so that load_dataset would not give the selection."""
    fields = read_front_matter(snapshot.texts.get(STANDALONE, ""), f"{STANDALONE} of the repository")
    if names := [name for name in ("configs", "dataset_info") if name in fields]:
        raise ConflictError(
            f"{STANDALONE} in the repository has {' and '.join(names)}, which datasets reads instead of the "
            "card's; take them out of that file, or push to another repository"
        )


def _check_hidden(plan: Plan) -> None:
    """Refuse to name configs where there were none, and so to take other data files from sight."""
    front = read_front_matter(split_card(plan.snapshot.texts.get(CARD, ""))[0])
    hidden = [path for path in plan.snapshot.oids if path not in plan.contents and _is_loaded(path)]
    if hidden and not front.get("configs"):
        raise ConflictError(
            f"the repository holds {hidden[0]}, which load_dataset gives now and would not after the push; push "
            "elsewhere, name that file in configs of its README.md, or pass overwrite=True (--overwrite)"
        )


def _is_loaded(path: str) -> bool:
    """Whether load_dataset would take a file for data where nothing names configs."""
    from datasets.data_files import FILES_TO_IGNORE
    from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS

    *folders, name = PurePosixPath(path).parts
    if name in FILES_TO_IGNORE or any(part.startswith((".", "__")) for part in (*folders, name)):
        return False
    # Notes are no data, though `datasets` knows a format that is made of them: it needs a task.toml for that.
    loaded = {suffix.lower() for suffix in _ALL_ALLOWED_EXTENSIONS} - {".md", ".toml"}
    return name == "task.toml" or any(suffix.lower() in loaded for suffix in PurePosixPath(name).suffixes)
