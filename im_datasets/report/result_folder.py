"""The folder that ``mine`` leaves: its files' names, writing them, and reading a selection back from them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.exceptions import DatasetsError

from im_datasets.common.errors import OutputError, UntrustedError
from im_datasets.common.storage import clear_killed_in, peak_memory_bytes, write_bytes, write_text
from im_datasets.common.untrusted import file_in
from im_datasets.data.arrow import laid_out, write_parquet
from im_datasets.data.hub_repository import CARD as CARD
from im_datasets.data.parquet_bounds import check_parquet
from im_datasets.report import figures, plot_style
from im_datasets.report.card import FIGURE, PANELS, mined_configs, render_card
from im_datasets.report.card_facts import NO_FACTS, CardFacts, missing_facts
from im_datasets.report.configs import Config, Published
from im_datasets.report.page import write_report
from im_datasets.report.statistics import Scores
from im_datasets.scoring.record import RECORD, ScoringRecord
from im_datasets.selection.added_columns import OF_DROPPED, OF_KEPT, check_added
from im_datasets.selection.select import Selection

KEPT, DROPPED, REPORT = "kept.parquet", "dropped.parquet", "report.html"

logger = logging.getLogger(__name__)

_OUTCOME = ("kept", "dropped", "cut", "reasons")
"""What came of a selection, beside what was asked of it."""


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What was asked of a selection and what it gave, as plain data for a record."""
    outcome = (len(selection.kept), len(selection.dropped), selection.cut, dict(selection.reasons))
    return {**selection.settings, **dict(zip(_OUTCOME, outcome, strict=True))}


def describe_settings(selection: dict[str, Any]) -> dict[str, Any]:
    """What was asked of a selection, out of what ``describe_selection`` gave."""
    return {name: value for name, value in selection.items() if name not in _OUTCOME}


def load_result(folder: str | Path) -> Selection:
    """Read the selection that ``mine`` wrote into a folder.

    Args:
        folder: What was given to ``mine`` as ``out``.

    Returns:
        Both sides, with their record.

    Raises:
        OutputError: The folder lacks one of its files, or one of them is not what ``mine`` writes.
    """
    folder = Path(folder)
    for name in (KEPT, DROPPED, RECORD):
        try:
            file = file_in(folder, name)
        except UntrustedError as error:
            raise OutputError(str(error)) from error
        if file is None:
            raise OutputError(f"{folder} has no {name}; pass the folder that im-datasets mine wrote (its --out)")
    record = ScoringRecord.load(folder / RECORD)
    described = record.selection
    if described is None:
        raise OutputError(f"{folder / RECORD} tells of no selection; pass the folder that im-datasets mine wrote")
    try:
        check_parquet({str(folder / name): folder / name for name in (KEPT, DROPPED)})
        kept, dropped = (_read_side(folder / name) for name in (KEPT, DROPPED))
        check_added(kept, record, str(folder / KEPT), OF_KEPT)
        check_added(dropped, record, str(folder / DROPPED), OF_DROPPED)
    except UntrustedError as error:
        raise OutputError(f"{error}; mine again") from error
    try:
        return Selection(kept, dropped, describe_settings(described), described["cut"], described["reasons"], record)
    except (LookupError, TypeError, AttributeError) as error:
        raise OutputError(f"{folder / RECORD} does not say what was selected ({error!r}); mine again") from error


def _read_side(path: Path) -> Dataset:
    """The rows of a Parquet file; `datasets` reads none where there are none."""
    try:
        if not pq.read_metadata(path).num_rows:
            return Dataset(pq.read_table(path))
        rows: Dataset = Dataset.from_parquet(escape(str(path)))
    except (pa.ArrowException, DatasetsError, OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read as Parquet ({type(error).__name__}); mine again") from error
    return rows


PARTS = (KEPT, DROPPED, RECORD, REPORT, CARD, FIGURE, PANELS)
"""Every file of a result, by its path in the folder."""


def check_loses_nothing(folder: Path) -> None:
    """Refuse to replace a result beside which somebody put files.

    Args:
        folder: What would be replaced; need not be there.

    Raises:
        OutputError: It holds files that im-datasets did not write; the message names them.
    """
    for inner in {(folder / part).parent for part in PARTS}:
        clear_killed_in(inner)
    foreign = [path for path in _entries(folder) if path not in PARTS]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{folder} holds {', '.join(foreign[:3])}{more}, which im-datasets did not write and --overwrite would "
            "delete; move it away, or pass another folder"
        )


def missing_parts(folder: Path) -> list[str]:
    """The files of a result that are not there; all of them where there is no record, which is written last."""
    missing = [path for path in PARTS if not (folder / path).is_file()]
    return list(PARTS) if RECORD in missing else missing


def _entries(folder: Path) -> list[str]:
    """Paths of the files in a folder, and of folders that hold none."""
    ends = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir()))
    return sorted(path.relative_to(folder).as_posix() for path in ends)


def write_result(
    folder: Path,
    selection: Selection,
    record: ScoringRecord,
    license: str | None,
    language: str | Sequence[str] | None,
) -> ScoringRecord:
    """Write every part of a result; the record last, with the time and memory of the others in it."""
    clock = perf_counter()
    for rows, name in ((selection.kept, KEPT), (selection.dropped, DROPPED)):
        with laid_out(rows, folder) as ordered:
            write_parquet(ordered, folder / name)
    written = perf_counter()
    write_report(selection, record, folder / REPORT)
    write_card(selection, record, folder, CardFacts.of(license, language))
    spent = {"write": round(written - clock, 3), "report": round(perf_counter() - written, 3)}
    # The record comes last and alone tells that the others are whole; so it holds the time that they took.
    record = replace(record, seconds={**record.seconds, **spent}, peak_memory_bytes=peak_memory_bytes())
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


def write_card(
    selection: Selection,
    record: ScoringRecord | None,
    folder: str | Path,
    facts: CardFacts = NO_FACTS,
    *,
    configs: Mapping[str, Config] | None = None,
) -> Path:
    """Write ``README.md`` and its figures into a folder, each file whole or not at all.

    Args:
        selection: What was kept and dropped, with the score columns.
        record: Where the scores came from; None where that is not known.
        folder: Where to write; made when it is missing.
        facts: What the publisher says of the rows.
        configs: Config name → its files beside the card; None is what ``mine`` writes.

    Returns:
        The path of the card.

    Raises:
        OutputError: The template is missing from the installation.
    """
    folder = Path(folder)
    configs = mined_configs(selection) if configs is None else configs
    files = [folder / path for config in configs.values() for path in config.files]
    digests = {str(file.relative_to(folder)): Published.of_file(file).sha256 for file in files if file.is_file()}
    write_figures(selection, folder)
    for hint in missing_facts(facts.license, facts.language):
        logger.info("%s", hint)
    return write_text(folder / CARD, str(render_card(selection, record, facts, configs=configs, digests=digests)))


def write_figures(selection: Selection, folder: Path) -> list[str]:
    """Write the card's figures into a folder.

    Returns:
        Their paths in the folder.
    """
    scores = Scores.of(selection)
    write_bytes(folder / FIGURE, plot_style.as_png(figures.score_distribution(scores)))
    write_bytes(folder / PANELS, plot_style.as_png(figures.indicator_panels(scores)))
    return [FIGURE, PANELS]
