"""Does a published selection hold what it claims? Files, counts, cut, rule, statistics, card, and a sample re-scored.

Each check is one function that says what it found; what could not be checked is said as plainly as what failed.
"""

import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, Features, concatenate_datasets, load_dataset_builder
from datasets.exceptions import DatasetsError
from numpy.typing import NDArray

from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.common.version import __version__
from im_datasets.hub.card_merge import LICENCE, read_front_matter, split_card
from im_datasets.hub.client import client_errors, is_out_of_reach, is_worth_retrying, try_again
from im_datasets.hub.manifest import Manifest, Published
from im_datasets.hub.parquet_configs import IS_KEPT, SPLIT
from im_datasets.hub.published import ATTEMPTS, PublishedSelection, safe_path
from im_datasets.hub.rescoring import Agreement, NotRescorable, compares_rows, read_pairs, rebuild, rescore
from im_datasets.indicators.base import UNSCORABLE
from im_datasets.report.card import Card, CardFacts, as_codes, block_digests, find_blocks, render_card
from im_datasets.report.statistics import score_columns
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import BELOW_THE_CUT, RANK, REASON, ROW, Selection

SAMPLE = 32
"""Rows that are scored again unless told otherwise."""

NEIGHBOUR_ROWS = 5000
"""Rows up to which neighbour distances are computed again, which takes the vectors of all rows."""

_SLACK = 1e-9
"""How far sums in another order may be off, relative to 1 + their size."""

_BROKEN = (ImDatasetsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)
"""What a check may run into when a stranger's claims are not what they should be."""

PASSED, FAILED, NOT_CHECKED = "passed", "failed", "not checked"


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
class Verification:
    """What came of all checks.

    Attributes:
        name: What was verified.
        commit: The commit it was read at; None for a folder.
        checks: In the order they were made.
        seed: Draws the same sample again.
    """

    name: str
    commit: str | None
    checks: list[Check]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether nothing failed and something passed."""
        outcomes = {check.outcome for check in self.checks}
        return FAILED not in outcomes and PASSED in outcomes

    @property
    def unchecked(self) -> int:
        """How many claims could not be checked."""
        return sum(check.outcome == NOT_CHECKED for check in self.checks)


def verify(
    target: str | Path, *, revision: str | None = None, sample: int = SAMPLE, seed: int | None = None
) -> Verification:
    """Check a published selection against its own claims, and some of its scores against the models.

    Args:
        target: Owner and name on the Hub, a folder with a copy of it, or a folder that ``mine`` wrote.
        revision: Branch, tag, commit or ``refs/pr/…`` on the Hub; None is ``main``.
        sample: Rows to score again with the recorded models; 0 scores none.
        seed: Draws them; None draws them anew each time, so that nobody can know which.

    Returns:
        Every check with its outcome; ``ok`` says whether all held.

    Raises:
        HubError: Nothing is there, or it is no selection of im-datasets.
    """
    published = PublishedSelection.open(target, revision)
    seed = secrets.randbelow(2**31) if seed is None else seed
    return Verification(published.name, published.commit, list(_all_checks(published, sample, seed)), seed)


def _all_checks(published: PublishedSelection, sample: int, seed: int) -> Iterator[Check]:
    if published.is_from_cache:
        told = "the Hub cannot be reached, so this is the copy of it in the local cache; it may have moved on"
        yield Check("commit", NOT_CHECKED, told)
    yield from _checked("files", lambda: _files(published))
    try:
        kept, dropped = published.sides()
        found = _Found(published, published.record, kept, dropped, published.selection())
    except _BROKEN as error:
        yield Check("counts", FAILED, f"the rows cannot be read: {error}")
        return
    checks: dict[str, Callable[[], Iterator[Check]]] = {
        "counts": lambda: _counts(found),
        "loading": lambda: _loading(found),
        "cut": lambda: _cut(found),
        "rule": lambda: _rule(found),
        "statistics": lambda: _statistics(found),
        "card": lambda: _card(found),
        "sample": lambda: _sample(found, sample, seed),
    }
    for name, check in checks.items():
        yield from _checked(name, check)


def _checked(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A check's findings; one that breaks on what it finds has failed."""
    try:
        yield from check()
    except _BROKEN as error:
        yield Check(name, FAILED, f"cannot be checked, something is not as it should be: {error!r}")


@dataclass(frozen=True)
class _Found:
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


def _files(published: PublishedSelection) -> Iterator[Check]:
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
    yield _verdict("files", wrong, f"{len(manifest.files)} files have the sha256 that was claimed")


def _verdict(name: str, wrong: list[str], right: str) -> Check:
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return Check(name, FAILED, "; ".join(wrong[:5]) + more) if wrong else Check(name, PASSED, right)


def _counts(found: _Found) -> Iterator[Check]:
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
    yield _verdict("counts", wrong, f"{told} rows, as claimed")


def _loading(found: _Found) -> Iterator[Check]:
    """Whether ``load_dataset`` gives the rows that were checked here, whatever else the repository holds."""
    published, manifest, wrong = found.published, found.manifest, []
    if manifest is None:
        return
    try:
        for number, name in enumerate(manifest.configs):
            wrong += _wrong_loading(published, name, None if number == 0 else name)
    except (*_BROKEN, *client_errors(), DatasetsError, yaml.YAMLError) as error:
        if is_out_of_reach(error) or is_worth_retrying(error) or isinstance(error, ConnectionError):
            yield Check("loading", NOT_CHECKED, f"what load_dataset gives: the Hub broke off ({type(error).__name__})")
            return
        wrong.append(f"load_dataset cannot open it: {' '.join(str(error).split())[:300]}")
    told = f"load_dataset gives these rows: {', '.join(manifest.configs)}"
    yield _verdict("loading", wrong, told)


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


def _cut(found: _Found) -> Iterator[Check]:
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
    yield _verdict("cut", wrong, told)


def _rule(found: _Found) -> Iterator[Check]:
    if found.record is None:
        yield Check("rule", NOT_CHECKED, "no record of the scoring was published")
        return
    rule, wrong, rows = LinearRule.from_dict(found.record.rule), [], 0
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
            wrong.append(f"{name}: {int(off.sum())} scores are not what the rule gives (row {_few(numbers.tolist())})")
    if wrong or rows:
        yield _verdict("rule", wrong, f"{rows:,} scores are what the rule {rule.name!r} gives for their indicators")


def _few(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _statistics(found: _Found) -> Iterator[Check]:
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
        fresh, checked = _describe(values[np.isfinite(values)]), checked + 1
        wrong += [
            f"{name} of {column} is {fresh.get(name)}, claimed is {claim}"
            for name, claim in claims.items()
            if not math.isclose(claim, fresh.get(name, math.nan), rel_tol=1e-9, abs_tol=1e-9)
        ]
    yield _verdict("statistics", wrong, f"count, mean, spread, median and range of {checked} columns are as claimed")


def _describe(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"count": 0.0}
    return {
        "count": float(len(values)),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _card(found: _Found) -> Iterator[Check]:
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
    yield _verdict("card", wrong, f"the generated parts and fields are as they were pushed{since}")
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


def _render_again(found: _Found, manifest: Manifest) -> Card | None:
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


def _sample(found: _Found, sample: int, seed: int) -> Iterator[Check]:
    if found.record is None or not sample:
        yield Check("sample", NOT_CHECKED, "no row was scored again" + ("" if sample else ": sample is 0"))
        return
    rows = _with_texts(found, found.record)
    if rows is None:
        yield Check("sample", NOT_CHECKED, "no row was scored again: texts and scores were not both published")
        return
    whole = found.dropped is not None and len(rows) == found.record.rows <= NEIGHBOUR_ROWS
    places = sorted(Random(seed).sample(range(len(rows)), min(sample, len(rows))))  # noqa: S311 - a sample
    drawn = rows.select(places)
    pairs = read_pairs(found.record, drawn)
    yield _unscorable(pairs.reasons, drawn, score_columns(found.record))
    for record in found.record.indicators:
        if any(column not in drawn.column_names for column in record.writes):
            yield Check("sample", NOT_CHECKED, f"{record.name}: its columns were not published")
            continue
        if compares_rows(record) and not whole:
            told = f"{record.name}: it compares all rows, for which both sides with texts are needed, at most"
            yield Check("sample", NOT_CHECKED, f"{told} {NEIGHBOUR_ROWS:,} rows")
            continue
        try:
            several = (read_pairs(found.record, rows), rows) if compares_rows(record) else (pairs, drawn)
            agreements = rescore(rebuild(record), record, *several)
        except NotRescorable as error:
            yield Check("sample", NOT_CHECKED, f"{record.name}: {error}")
        except HubError as error:
            yield Check("sample", FAILED, f"{record.name}: {error}")
        else:
            yield from map(_agreement, agreements)


def _with_texts(found: _Found, record: ScoringRecord) -> Dataset | None:
    """All rows of which both texts and scores are there."""
    needed = {*record.columns.get("fields", {}).values(), LOG_LOSS, ROW}
    sides = [side for side in found.sides.values() if len(side) and needed <= set(side.column_names)]
    shared = (
        [name for name in sides[0].column_names if all(name in side.column_names for side in sides)] if sides else []
    )
    return concatenate_datasets([side.select_columns(shared) for side in sides]) if sides else None


def _unscorable(reasons: list[str], rows: Dataset, columns: list[str]) -> Check:
    """Whether the rows that cannot be read as a pair are those that were said to be."""
    told = rows[UNSCORABLE][:] if UNSCORABLE in rows.column_names else [""] * len(rows)
    numbers = rows[ROW][:]
    wrong = [n for n, here, there in zip(numbers, reasons, told, strict=True) if here and here != there]
    lacking = {f"no {column}" for column in columns}
    wrong += [
        n for n, here, there in zip(numbers, reasons, told, strict=True) if there and not here and there not in lacking
    ]
    found = [f"row {_few(wrong)}: the reason for having no score is another one"] if wrong else []
    return _verdict("sample", found, f"{len(rows)} rows drawn; those without a pair are those that were said to be")


def _agreement(agreement: Agreement) -> Check:
    name, rows = agreement.column, agreement.rows
    if agreement.differing:
        wrong = f"{name}: {len(agreement.differing)} of {rows} rows score otherwise (row {_few(agreement.differing)})"
        return Check("sample", FAILED, f"{wrong}; off by {agreement.largest:.2g}, allowed {agreement.tolerance:g}")
    told = f"{name}: {rows} rows scored again agree (off by {agreement.largest:.1g} at most"
    return Check("sample", PASSED, f"{told}, allowed {agreement.tolerance:g})")
