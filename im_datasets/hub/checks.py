"""The checks of ``verify`` that score nothing again: each one function that says what it found."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, Features, load_dataset_builder
from datasets.exceptions import DatasetsError
from numpy.typing import NDArray

from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.common.version import __version__
from im_datasets.hub.card_merge import LICENCE, read_front_matter, split_card
from im_datasets.hub.client import client_errors, is_out_of_reach, is_worth_retrying, try_again
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import IS_KEPT, SPLIT
from im_datasets.hub.published import ATTEMPTS, PublishedSelection, safe_path
from im_datasets.report.card import Card, block_digests, find_blocks, render_card
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.report.configs import Published
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.statistics import describe
from im_datasets.selection.select import BELOW_THE_CUT, RANK, REASON, ROW, Selection

PASSED, FAILED, NOT_CHECKED = "passed", "failed", "not checked"

_SLACK = 1e-9
"""How far sums in another order may be off, relative to 1 + their size."""


BROKEN = (ImDatasetsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)
"""What a check may run into when a stranger's claims are not what they should be."""


@dataclass(frozen=True)
class Check:
    """One claim and what came of it.

    Attributes:
        name: What was looked at: ``commit``, ``files``, ``counts``, ``loading``, ``cut``, ``rule``, ``statistics``,
            ``card`` or ``sample``.
        outcome: ``passed``, ``failed`` or ``not checked``.
        told: What was found, in one sentence.
    """

    name: str
    outcome: str
    told: str


@dataclass(frozen=True)
class Found:
    """What was published.

    Attributes:
        published: Files and claims.
        record: The ScoringRecord; None where there is none.
        kept: With their scores, where these were published.
        dropped: The same; None where nothing tells of them.
        selection: Both.
    """

    published: PublishedSelection
    record: ScoringRecord | None
    kept: Dataset
    dropped: Dataset | None
    selection: Selection

    @property
    def manifest(self) -> Manifest | None:
        """What the publication claims; None in a folder that ``mine`` wrote."""
        return self.published.manifest

    @property
    def claims(self) -> dict[str, Any]:
        """What the selection says of itself."""
        return self.published.told

    @property
    def sides(self) -> dict[str, Dataset]:
        """Name → rows, of the sides that are there and have scores."""
        both = {"kept": self.kept} | ({} if self.dropped is None else {"dropped": self.dropped})
        return {name: rows for name, rows in both.items() if LOG_LOSS in rows.column_names}


def check_files(published: PublishedSelection) -> Iterator[Check]:
    """Every published file against the sha256 that is claimed for it."""
    manifest = published.manifest
    if manifest is None:
        yield Check("files", NOT_CHECKED, "a folder of mine holds no checksums; only what is pushed has them")
        return
    wrong = []
    for path, claim in manifest.files.items():
        local = published.folder / safe_path(path)
        if not local.is_file():
            wrong.append(f"{path} is missing")
        elif Published.of_file(local).sha256 != claim.sha256:
            wrong.append(f"{path} has another sha256 than claimed")
    named = {path for config in manifest.configs.values() for path in config.files}
    wrong += [f"{path} is in a config but has no checksum" for path in sorted(named - set(manifest.files))]
    yield verdict("files", wrong, f"{len(manifest.files)} files have the sha256 that was claimed")


def verdict(name: str, wrong: list[str], right: str) -> Check:
    """One outcome: passed where nothing is wrong, else failed with the first things that are."""
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return Check(name, FAILED, "; ".join(wrong[:5]) + more) if wrong else Check(name, PASSED, right)


def check_counts(found: Found) -> Iterator[Check]:
    """Rows of every config, kept and dropped rows, and drop reasons against the claims."""
    manifest, claims, wrong = found.manifest, found.claims, []
    for name, config in (manifest.configs if manifest else {}).items():
        rows = found.published.tables[name]
        if len(rows) != config.rows or list(rows.column_names) != config.columns:
            wrong.append(f"{name} has {len(rows)} rows of {len(rows.column_names)} columns, claimed are {config.rows}")
    sizes = {"kept": len(found.kept), **({} if found.dropped is None else {"dropped": len(found.dropped)})}
    wrong += [f"{size} rows {name}, claimed are {claims[name]}" for name, size in sizes.items() if claims[name] != size]
    if found.record and claims["kept"] + claims["dropped"] != found.record.rows:
        wrong.append(f"{claims['kept']} + {claims['dropped']} rows, but {found.record.rows} were scored")
    if found.record and found.record.selection not in (None, claims):
        wrong.append("the record tells of another selection than the manifest")
    if found.dropped is not None and REASON in found.dropped.column_names:
        reasons = Counter(found.dropped[REASON][:])
        if dict(reasons) != claims["reasons"]:
            wrong.append(f"drop reasons {dict(reasons)}, claimed are {claims['reasons']}")
    numbers = [row for rows in found.sides.values() for row in rows[ROW][:]]
    if len(set(numbers)) < len(numbers):
        wrong.append("a row number comes twice")
    scores = found.published.tables.get("scores")
    if scores is not None and sum(scores[IS_KEPT][:]) != claims["kept"]:
        wrong.append("the scores mark another number of rows as kept")
    told = " and ".join(f"{size:,} {name}" for name, size in sizes.items())
    yield verdict("counts", wrong, f"{told} rows, as claimed")


def check_loading(found: Found) -> Iterator[Check]:
    """Whether ``load_dataset`` gives the rows that were checked here, whatever else the repository holds."""
    published, manifest, wrong = found.published, found.manifest, []
    if manifest is None:
        return
    try:
        for number, name in enumerate(manifest.configs):
            wrong += _wrong_loading(published, name, None if number == 0 else name)
    except (*BROKEN, *client_errors(), DatasetsError, yaml.YAMLError) as error:
        if is_out_of_reach(error) or is_worth_retrying(error) or isinstance(error, ConnectionError):
            yield Check("loading", NOT_CHECKED, f"what load_dataset gives: the Hub broke off ({type(error).__name__})")
            return
        wrong.append(f"load_dataset cannot open it: {' '.join(str(error).split())[:300]}")
    told = f"load_dataset gives these rows: {', '.join(manifest.configs)}"
    yield verdict("loading", wrong, told)


def _wrong_loading(published: PublishedSelection, name: str, wish: str | None) -> list[str]:
    """What `datasets` makes of one config, by its own reading of the repository, that is not as claimed.

    Args:
        published: What is claimed.
        name: Of the config.
        wish: What ``load_dataset`` is asked for; None is the default config.
    """
    on_hub = published.commit is not None and not published.is_from_cache
    path = published.name if on_hub else str(published.folder.resolve())
    # A cache of its own: a dataset that was prepared before would bring its own features and sizes.
    with TemporaryDirectory(prefix="im-datasets-") as cache:
        revision = published.commit if on_hub else None
        builder = try_again(
            lambda: load_dataset_builder(path, wish, revision=revision, cache_dir=cache), path, ATTEMPTS
        )
    config, rows, info = published.manifest.configs[name], published.tables[name], builder.info  # type: ignore[union-attr]
    asked = f"load_dataset({published.name!r}{'' if wish is None else f', {wish!r}'})"
    given = {split: _inside(paths, builder.base_path) for split, paths in (builder.config.data_files or {}).items()}
    if builder.config.name != name or given != {SPLIT: config.files}:
        files = ", ".join(path for paths in given.values() for path in paths[:3])
        return [f"{asked} gives the config {builder.config.name!r} from {files}, not {name!r} as claimed"]
    wrong = [f"{asked} reads {key}" for key in ("columns", "filters") if getattr(builder.config, key, None)]
    if builder.name != "parquet":
        wrong.append(f"{asked} reads the files as {builder.name}, not as Parquet")
    if info.features is not None and not _same_columns(info.features, rows.features):
        wrong.append(f"{asked} gives other columns or types than the files hold")
    sizes = {split: told.num_examples for split, told in (info.splits or {}).items()}
    if sizes not in ({}, {SPLIT: len(rows)}):
        wrong.append(f"{asked} expects {sizes}, the files hold {len(rows)} rows")
    return wrong


def _inside(paths: list[str], base: str) -> list[str]:
    return [path.removeprefix(base.rstrip("/") + "/") for path in paths]


def _same_columns(left: Features, right: Features) -> bool:
    here, there = left.arrow_schema, right.arrow_schema
    return bool(here.names == there.names and here.types == there.types)


def _numbers(rows: Dataset, column: str) -> NDArray[np.float64]:
    return np.asarray(rows.select_columns([column]).with_format("arrow")[:][column].to_numpy(), dtype=np.float64)


def check_cut(found: Found) -> Iterator[Check]:
    """Every kept row against the cut, and the order of the rows."""
    if "kept" not in found.sides:
        yield Check("cut", NOT_CHECKED, "the scores were not published")
        return
    losses, ranks, cut = _numbers(found.kept, LOG_LOSS), found.kept[RANK][:], found.claims["cut"]
    wrong = []
    if not np.isfinite(losses).all():
        wrong.append("a kept row has no score")
    elif (np.diff(losses) < 0).any() or ranks != sorted(ranks):
        wrong.append("the kept rows are not in the order of their scores")
    worst = losses.max() if len(losses) else None
    if worst != cut:
        wrong.append(f"the worst kept row scores {worst!r}, the claimed cut is {cut!r}")
    if found.dropped is not None and REASON in found.dropped.column_names and LOG_LOSS in found.dropped.column_names:
        below = np.array([reason == BELOW_THE_CUT for reason in found.dropped[REASON][:]], dtype=bool)
        over = _numbers(found.dropped, LOG_LOSS)[below]
        if cut is not None and (over < cut).any():
            wrong.append(f"{int((over < cut).sum())} rows dropped as below the cut score better than the cut")
    told = f"every kept row scores {cut:.6g} or better, in order" if len(losses) else "no row was kept"
    yield verdict("cut", wrong, told)


def check_rule(found: Found) -> Iterator[Check]:
    """The scores against what the recorded rule gives for their indicators."""
    if found.record is None:
        yield Check("rule", NOT_CHECKED, "no record of the scoring was published")
        return
    rule, wrong, rows = found.record.rule, [], 0
    shipped = LinearRule.load(rule.name) if rule.name in LinearRule.names() else None
    if shipped and shipped.to_dict() != rule.to_dict():
        if found.record.package_version == __version__:
            wrong.append(f"the recorded rule is not the rule {rule.name!r} that im-datasets {__version__} ships")
        else:
            told = f"the rule {rule.name!r} of im-datasets {found.record.package_version} is another one here"
            yield Check("rule", NOT_CHECKED, told)
    for name, side in found.sides.items():
        lacking = [column for column in rule.columns if column not in side.column_names]
        if lacking:
            yield Check("rule", NOT_CHECKED, f"{name}: {', '.join(lacking)} not published")
            continue
        given = _numbers(side, LOG_LOSS)
        expected = rule.predict({column: _numbers(side, column) for column in rule.columns})
        off = ~(np.isclose(given, expected, rtol=_SLACK, atol=_SLACK, equal_nan=True))
        rows += len(side)
        if off.any():
            numbers = np.array(side[ROW][:])[off]
            wrong.append(f"{name}: {int(off.sum())} scores are not what the rule gives (row {few(numbers.tolist())})")
    if wrong or rows:
        yield verdict("rule", wrong, f"{rows:,} scores are what the rule {rule.name!r} gives for their indicators")


def few(rows: list[int]) -> str:
    """The first rows of a list, as text."""
    return ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def check_statistics(found: Found) -> Iterator[Check]:
    """Count, mean, spread, median and range of every column against the claims."""
    if found.record is None:
        return
    sides = list(found.sides.values())
    if len(sides) < 2:
        told = "means and medians over all rows: the scores of the dropped rows were not published"
        yield Check("statistics", NOT_CHECKED, told)
        return
    wrong, checked = [], 0
    for column, claims in found.record.statistics.items():
        if any(column not in side.column_names for side in sides):
            continue
        values = np.concatenate([_numbers(side, column) for side in sides])
        fresh, checked = describe(values), checked + 1
        wrong += [
            f"{name} of {column} is {fresh.get(name)}, claimed is {claim}"
            for name, claim in claims.items()
            if not math.isclose(claim, fresh.get(name, math.nan), rel_tol=1e-9, abs_tol=1e-9)
        ]
    yield verdict("statistics", wrong, f"count, mean, spread, median and range of {checked} columns are as claimed")


def check_card(found: Found) -> Iterator[Check]:
    """The generated parts and fields of the card against what was pushed, and its numbers against the rows."""
    manifest, text = found.manifest, found.published.card
    if manifest is None:
        yield Check("card", NOT_CHECKED, "a folder of mine holds no digest of its card")
        return
    if text is None:
        yield Check("card", FAILED, "README.md is missing")
        return
    front, body = split_card(text.replace("\r\n", "\n"))
    blocks, claims = find_blocks(body), manifest.card
    digests = block_digests(blocks)
    wrong = [f"the part {name} is missing" for name in claims["blocks"] if name not in blocks]
    wrong += [
        f"the part {name} is not as it was pushed"
        for name, digest in claims["blocks"].items()
        if name in digests and digests[name] != digest
    ]
    there = read_front_matter(front)
    wrong += _wrong_metadata(there, claims["metadata"])
    fresh = _render_again(found, manifest)
    if fresh is not None:
        wrong += [
            f"the part {name}, as it was pushed, does not tell what the rows and the record tell"
            for name, digest in block_digests(fresh.blocks).items()
            if claims["blocks"].get(name) != digest
        ]
    edited = [name for name in _EDITABLE if not _holds(there.get(name), claims["metadata"].get(name))]
    since = f"; edited since: {', '.join(edited)}" if edited else ""
    yield verdict("card", wrong, f"the generated parts and fields are as they were pushed{since}")
    if fresh is None:
        told = (
            f"whether every number on the card follows from the rows: it was written by {manifest.package_version}"
            if manifest.package_version != __version__
            else "whether every number on the card follows from the rows: that takes the scores of both sides"
        )
        yield Check("card", NOT_CHECKED, told)
    elif not wrong:
        yield Check("card", PASSED, "every number on it follows from the rows and the record")


_EDITABLE = ("language", "pretty_name", "task_categories")
"""Fields that a publisher may well correct later; that the licence is another one is a failure."""


def _wrong_metadata(there: dict[str, Any], claims: dict[str, Any]) -> list[str]:
    """Generated fields of the front matter that do not say what was pushed; others may have been added to them."""
    wrong = []
    for name, claim in claims.items():
        given = there.get(name)
        if name in {"configs", "dataset_info"}:
            names = Counter(entry.get("config_name") for entry in _entries(given) if isinstance(entry, dict))
            twice = [entry["config_name"] for entry in _entries(claim) if names[entry["config_name"]] > 1]
            wrong += [f"{name} in the front matter has {config!r} more than once" for config in twice]
        if name in {"configs", "dataset_info", "tags", "source_datasets"}:
            if not _holds(given, claim):
                wrong.append(f"{name} in the front matter is not as it was pushed")
        elif name in {"size_categories", *LICENCE} and given != claim:
            wrong.append(f"{name} in the front matter is {given}, pushed was {claim}")
    added = [name for name in LICENCE if name in there and name not in claims]
    return wrong + [f"{name} in the front matter is {there[name]}, pushed was none" for name in added]


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _holds(given: Any, claim: Any) -> bool:
    """Whether everything that was claimed is there; more may be."""
    known = _entries(given)
    return all(entry in known for entry in _entries(claim))


def _render_again(found: Found, manifest: Manifest) -> Card | None:
    """The card as the published rows and record give it; None where they do not suffice."""
    from jinja2 import TemplateError

    if manifest.package_version != __version__ or len(found.sides) < 2:
        return None
    facts = manifest.card["facts"]
    tuples = {name: as_codes(facts[name]) for name in ("language", "tags", "task_categories")}
    is_original = manifest.columns == "original"
    told = CardFacts(**{**facts, **tuples})
    try:
        return render_card(found.selection, found.record, told, configs=manifest.configs, original=is_original)
    except TemplateError as error:
        raise HubError(f"the card cannot be made from what is claimed: {error}") from error
