"""The checks of ``verify`` that score nothing again: each one function that says what it found."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.common.errors import HubError
from im_datasets.common.untrusted import MESSAGE, shown
from im_datasets.common.version import __version__
from im_datasets.hub.card_merge import LICENCE, read_front_matter, split_card
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import IS_KEPT
from im_datasets.hub.published import PublishedSelection
from im_datasets.report.card import Card, render_card
from im_datasets.report.card_blocks import block_digests, find_blocks
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.report.configs import Published
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.statistics import describe
from im_datasets.selection.select import BELOW_THE_CUT, RANK, REASON, ROW

_SLACK = 1e-9
"""How far sums in another order may be off, relative to 1 + their size."""

_EDITABLE = ("language", "pretty_name", "task_categories")
"""Fields that a publisher may well correct later; that the licence is another one is a failure."""


class Outcome(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


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
    outcome: Outcome
    told: str

    def __post_init__(self) -> None:
        # The one place that everything told of a repository passes: no name in it makes a line of its own.
        object.__setattr__(self, "told", shown(self.told, MESSAGE))


def verdict(name: str, wrong: list[str], right: str) -> Check:
    """One outcome: passed where nothing is wrong, else failed with the first things that are."""
    return Check(name, Outcome.FAILED, few(wrong, "; ")) if wrong else Check(name, Outcome.PASSED, right)


def few(entries: Sequence[object], separator: str = ", ") -> str:
    """The first five entries of a list, as text."""
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    return separator.join(map(str, entries[:5])) + more


def check_files(published: PublishedSelection) -> Iterator[Check]:
    """Every published file against the sha256 that is claimed for it."""
    manifest = published.manifest
    if manifest is None:
        yield Check("files", Outcome.NOT_CHECKED, "a folder of mine holds no checksums; only what is pushed has them")
        return
    wrong = []
    for path, claim in manifest.files.items():
        try:
            local = published.file(path)
        except HubError as error:
            wrong.append(str(error))
            continue
        if local is None:
            wrong.append(f"{path} is missing")
        elif (size := local.stat().st_size) != claim.size:
            wrong.append(f"{path} has {size:,} bytes, claimed are {claim.size:,}")
        elif Published.of_file(local).sha256 != claim.sha256:
            wrong.append(f"{path} has another sha256 than claimed")
    named = {path for config in manifest.configs.values() for path in config.files}
    wrong += [f"{path} is in a config but has no checksum" for path in sorted(named - set(manifest.files))]
    yield verdict("files", wrong, f"{len(manifest.files)} files have the sha256 that was claimed")


def check_counts(published: PublishedSelection) -> Iterator[Check]:
    """Rows of every config, kept and dropped rows, and drop reasons against the claims."""
    manifest, claims, wrong = published.manifest, published.claims, []
    for name, config in (manifest.configs if manifest else {}).items():
        rows = published.tables[name]
        if len(rows) != config.rows or list(rows.column_names) != config.columns:
            wrong.append(f"{name} has {len(rows)} rows of {len(rows.column_names)} columns, claimed are {config.rows}")
    sizes = {name: len(rows) for name, rows in published.sides.items()}
    wrong += [f"{size} rows {name}, claimed are {claims[name]}" for name, size in sizes.items() if claims[name] != size]
    if published.record and claims["kept"] + claims["dropped"] != published.record.rows:
        wrong.append(f"{claims['kept']} + {claims['dropped']} rows, but {published.record.rows} were scored")
    if published.record and published.record.selection not in (None, claims):
        wrong.append("the record tells of another selection than the manifest")
    dropped = published.sides.get("dropped")
    if dropped is not None and REASON in dropped.column_names:
        reasons = dict(Counter(dropped[REASON][:]))
        if reasons != claims["reasons"]:
            wrong.append(f"drop reasons {reasons}, claimed are {claims['reasons']}")
    numbers = [row for rows in published.scored.values() for row in rows[ROW][:]]
    if len(set(numbers)) < len(numbers):
        wrong.append("a row number comes twice")
    scores = published.tables.get("scores")
    if scores is not None and sum(scores[IS_KEPT][:]) != claims["kept"]:
        wrong.append("the scores mark another number of rows as kept")
    counts = " and ".join(f"{size:,} {name}" for name, size in sizes.items())
    yield verdict("counts", wrong, f"{counts} rows, as claimed")


def _numbers(rows: Dataset, column: str) -> NDArray[np.float64]:
    return np.asarray(rows.select_columns([column]).with_format("arrow")[:][column].to_numpy(), dtype=np.float64)


def check_cut(published: PublishedSelection) -> Iterator[Check]:
    """The order of the kept rows, and that no dropped row below the cut is better than they are."""
    kept, dropped = published.scored.get("kept"), published.scored.get("dropped")
    if kept is None:
        yield Check("cut", Outcome.NOT_CHECKED, "the scores were not published")
        return
    losses, ranks, cut = _numbers(kept, LOG_LOSS), kept[RANK][:], published.claims["cut"]
    wrong = []
    if not np.isfinite(losses).all():
        wrong.append("a kept row has no score")
    elif (np.diff(losses) < 0).any() or ranks != sorted(ranks):
        wrong.append("the kept rows are not in the order of their scores")
    worst = losses.max() if len(losses) else None
    if worst != cut:
        wrong.append(f"the worst kept row scores {worst!r}, the claimed cut is {cut!r}")
    if dropped is not None and REASON in dropped.column_names and cut is not None:
        below = np.array([reason == BELOW_THE_CUT for reason in dropped[REASON][:]], dtype=bool)
        if better := int((_numbers(dropped, LOG_LOSS)[below] < cut).sum()):
            wrong.append(f"{better} rows dropped as below the cut score better than the cut")
    right = f"every kept row scores {cut:.6g} or better, in order" if len(losses) else "no row was kept"
    yield verdict("cut", wrong, right)


def check_rule(published: PublishedSelection) -> Iterator[Check]:
    """The scores against what the recorded rule gives for their indicators."""
    record = published.record
    if record is None:
        yield Check("rule", Outcome.NOT_CHECKED, "no record of the scoring was published")
        return
    rule, wrong, rows = record.rule, [], 0
    shipped = LinearRule.load(rule.name) if rule.name in LinearRule.names() else None
    if shipped and shipped.to_dict() != rule.to_dict():
        # Another version may ship another rule by this name; the same one does not.
        if record.package_version == __version__:
            wrong.append(f"the recorded rule is not the rule {rule.name!r} that im-datasets {__version__} ships")
        else:
            reason = f"the rule {rule.name!r} of im-datasets {record.package_version} is another one here"
            yield Check("rule", Outcome.NOT_CHECKED, reason)
    for name, side in published.scored.items():
        if lacking := [column for column in rule.columns if column not in side.column_names]:
            yield Check("rule", Outcome.NOT_CHECKED, f"{name}: {', '.join(lacking)} not published")
            continue
        expected = rule.predict({column: _numbers(side, column) for column in rule.columns})
        equal = np.isclose(_numbers(side, LOG_LOSS), expected, rtol=_SLACK, atol=_SLACK, equal_nan=True)
        rows += len(side)
        if not equal.all():
            numbers = np.array(side[ROW][:])[~equal].tolist()
            wrong.append(f"{name}: {len(numbers)} scores are not what the rule gives (row {few(numbers)})")
    if wrong or rows:
        yield verdict("rule", wrong, f"{rows:,} scores are what the rule {rule.name!r} gives for their indicators")


def check_statistics(published: PublishedSelection) -> Iterator[Check]:
    """Count, mean, spread, median and range of every column against the claims."""
    if published.record is None:
        return
    sides = list(published.scored.values())
    if len(sides) < 2:
        reason = "means and medians over all rows: the scores of the dropped rows were not published"
        yield Check("statistics", Outcome.NOT_CHECKED, reason)
        return
    wrong, checked = [], 0
    for column, claims in published.record.statistics.items():
        if any(column not in side.column_names for side in sides):
            continue
        values = np.concatenate([_numbers(side, column) for side in sides])
        fresh, checked = describe(values), checked + 1
        wrong += [
            f"{name} of {column} is {fresh.get(name)}, claimed is {claim}"
            for name, claim in claims.items()
            if not math.isclose(claim, fresh.get(name, math.nan), rel_tol=_SLACK, abs_tol=_SLACK)
        ]
    yield verdict("statistics", wrong, f"count, mean, spread, median and range of {checked} columns are as claimed")


def check_card(published: PublishedSelection) -> Iterator[Check]:
    """The generated parts and fields of the card against what was pushed, and its numbers against the rows."""
    manifest, text = published.manifest, published.card
    if manifest is None:
        yield Check("card", Outcome.NOT_CHECKED, "a folder of mine holds no digest of its card")
        return
    if text is None:
        yield Check("card", Outcome.FAILED, "README.md is missing")
        return
    # Line ends may have become those of Windows; digests are of plain ones.
    front, body = split_card(text.replace("\r\n", "\n"))
    fields, digests = read_front_matter(front), block_digests(find_blocks(body))
    blocks, metadata = manifest.card["blocks"], manifest.card["metadata"]
    wrong = [f"the part {name} is missing" for name in blocks if name not in digests]
    edited = [name for name, digest in blocks.items() if digests.get(name, digest) != digest]
    wrong += [f"the part {name} is not as it was pushed" for name in edited]
    wrong += _wrong_metadata(fields, metadata)
    fresh = _render_again(published, manifest)
    if fresh is not None:
        wrong += [
            f"the part {name}, as it was pushed, does not tell what the rows and the record tell"
            for name, digest in block_digests(fresh.blocks).items()
            if blocks.get(name) != digest
        ]
    corrected = [name for name in _EDITABLE if not _holds(fields.get(name), metadata.get(name))]
    since = f"; edited since: {', '.join(corrected)}" if corrected else ""
    yield verdict("card", wrong, f"the generated parts and fields are as they were pushed{since}")
    if fresh is None:
        reason = "that takes the scores of both sides"
        if manifest.package_version != __version__:
            reason = f"it was written by {manifest.package_version}"
        yield Check("card", Outcome.NOT_CHECKED, f"whether every number on the card follows from the rows: {reason}")
    elif not wrong:
        yield Check("card", Outcome.PASSED, "every number on it follows from the rows and the record")


def _wrong_metadata(fields: dict[str, Any], claims: dict[str, Any]) -> list[str]:
    """Generated fields of the front matter that do not say what was pushed; others may have been added to them."""
    wrong = []
    for name, claim in claims.items():
        value = fields.get(name)
        if name in {"configs", "dataset_info"}:
            names = Counter(entry.get("config_name") for entry in _entries(value) if isinstance(entry, dict))
            twice = [entry["config_name"] for entry in _entries(claim) if names[entry["config_name"]] > 1]
            wrong += [f"{name} in the front matter has {config!r} more than once" for config in twice]
        if name in {"configs", "dataset_info", "tags", "source_datasets"}:
            if not _holds(value, claim):
                wrong.append(f"{name} in the front matter is not as it was pushed")
        elif name in {"size_categories", *LICENCE} and value != claim:
            wrong.append(f"{name} in the front matter is {value}, pushed was {claim}")
    added = [name for name in LICENCE if name in fields and name not in claims]
    return wrong + [f"{name} in the front matter is {fields[name]}, pushed was none" for name in added]


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _holds(value: Any, claim: Any) -> bool:
    """Whether everything that was claimed is there; more may be."""
    entries = _entries(value)
    return all(entry in entries for entry in _entries(claim))


def _render_again(published: PublishedSelection, manifest: Manifest) -> Card | None:
    """The card as the published rows and record give it; None where they do not suffice."""
    from jinja2 import TemplateError

    # Another version may word the card otherwise.
    if manifest.package_version != __version__ or len(published.scored) < 2:
        return None
    stated = manifest.card["facts"]
    facts = CardFacts(
        **{**stated, **{name: as_codes(stated[name]) for name in ("language", "tags", "task_categories")}}
    )
    is_original = manifest.columns == "original"
    try:
        return render_card(published.selection, published.record, facts, configs=manifest.configs, original=is_original)
    except TemplateError as error:
        raise HubError(f"the card cannot be made from what is claimed: {error}") from error
