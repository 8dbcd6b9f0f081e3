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
from im_datasets.data.arrow import read_column
from im_datasets.hub.published import PublishedSelection
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.report.configs import Published
from im_datasets.report.statistics import score_columns
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.statistics import describe
from im_datasets.selection.added_columns import IS_KEPT
from im_datasets.selection.select import BELOW_THE_CUT, RANK, REASON, ROW, TARGET

RULE_COMPUTED = ("record.rule.intercept", "record.rule.terms", "record.rule.schema_version")
RULE_ABOUT = (
    *("record.rule.name", "record.rule.title", "record.rule.target", "record.rule.aggregation"),
    *("record.rule.indicators", "record.rule.provenance", "record.rule.caveats"),
)
"""What scores tell of a rule, and what they do not."""

STATISTICS = ("record.statistics", "record.indicators.*.unscored")

UNSCORED = "unscorable: "
"""How the reason of a row without a score begins."""

_SLACK = 1e-9
"""How far sums in another order may be off, relative to 1 + their size."""


class Outcome(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One claim and what came of it.

    Attributes:
        name: What was looked at, as ``docs/publish-and-verify.md`` lists it.
        outcome: ``passed``, ``failed`` or ``not checked``.
        told: What was found, in one sentence.
        claims: Places of ``claims.CLAIMS`` that this speaks of.
    """

    name: str
    outcome: Outcome
    told: str
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The one place that everything told of a repository passes: no name in it makes a line of its own.
        object.__setattr__(self, "told", shown(self.told, MESSAGE))


def verdict(name: str, wrong: list[str], right: str, claims: tuple[str, ...] = ()) -> Check:
    """One outcome: passed where nothing is wrong, else failed with the first things that are."""
    if wrong:
        return Check(name, Outcome.FAILED, few(wrong, "; "), claims)
    return Check(name, Outcome.PASSED, right, claims)


def few(entries: Sequence[object], separator: str = ", ") -> str:
    """The first five entries of a list, as text; none so long that it would push out what follows."""
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    return separator.join(shown(entry, MESSAGE // 8) for entry in entries[:5]) + more


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
        elif (content := Published.of_file(local)).sha256 != claim.sha256:
            wrong.append(f"{path} has another sha256 than claimed")
        elif claim.git_sha1 not in (None, content.git_sha1):
            wrong.append(f"{path} has another name in git than claimed")
    named = {path for config in manifest.configs.values() for path in config.files}
    wrong += [f"{path} is in a config but has no checksum" for path in sorted(named - set(manifest.files))]
    yield verdict(
        "files", wrong, f"{len(manifest.files)} files have the sha256 that was claimed", ("files", "configs.*.files")
    )


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
    wrong += _wrong_columns(published)
    dropped = published.sides.get("dropped")
    if dropped is not None and REASON in dropped.column_names:
        reasons = dict(Counter(values_of(dropped, REASON)))
        if reasons != claims["reasons"]:
            wrong.append(f"drop reasons {reasons}, claimed are {claims['reasons']}")
    numbers = [row for rows in published.scored.values() for row in values_of(rows, ROW)]
    if len(set(numbers)) < len(numbers):
        wrong.append("a row number comes twice")
    scores = published.tables.get("scores")
    if scores is not None and sum(values_of(scores, IS_KEPT)) != claims["kept"]:
        wrong.append("the scores mark another number of rows as kept")
    wrong += _wrong_copies(published)
    if dropped is None:
        reason = f"that {claims['dropped']:,} rows were dropped, and why: neither they nor their scores were published"
        yield Check("counts", Outcome.NOT_CHECKED, reason, ("selection.reasons", "record.unscorable"))
    wrong += _wrong_unscorable(published)
    counts = " and ".join(f"{size:,} {name}" for name, size in sizes.items())
    has_reasons = len(published.scored) == 2
    spoken = COUNTED + (("selection.reasons", "record.unscorable") if has_reasons else ())
    yield verdict("counts", wrong, f"{counts} rows, as claimed", spoken)


COUNTED = (
    *("columns", "configs.*.rows", "configs.*.columns", "selection.kept", "selection.dropped"),
    *("record.rows", "record.selection"),
)
"""What is counted wherever there are rows."""


def _wrong_unscorable(published: PublishedSelection) -> list[str]:
    """Rows without a score, by their reasons, that are not those of the record."""
    sides = list(published.scored.values())
    if published.record is None or len(sides) < 2 or any(UNSCORABLE not in side.column_names for side in sides):
        return []
    stated = dict(Counter(reason for side in sides for reason in values_of(side, UNSCORABLE) if reason))
    claimed = published.record.unscorable
    return [] if stated == claimed else [f"unscorable rows {stated}, claimed are {claimed}"]


def _wrong_columns(published: PublishedSelection) -> list[str]:
    """Whether kept and dropped rows have columns of this package where the manifest says so."""
    manifest = published.manifest
    if manifest is None or (kept := published.tables.get("kept")) is None:
        return []
    if manifest.columns not in ("all", "original"):
        return [f"the manifest names the columns {manifest.columns!r}, which is neither 'all' nor 'original'"]
    # A kept row has a rank, whatever else it has.
    if (RANK in kept.column_names) != (manifest.columns == "all"):
        return [f"the kept rows have the columns {few(kept.column_names)}, claimed are {manifest.columns!r}"]
    return []


def _wrong_copies(published: PublishedSelection) -> list[str]:
    """Where a row stands in two configs, values that differ between them."""
    scores, wrong = published.tables.get("scores"), []
    if scores is None:
        return []
    is_kept = np.asarray(values_of(scores, IS_KEPT), dtype=bool)
    for name, places in (("kept", np.flatnonzero(is_kept)), ("dropped", np.flatnonzero(~is_kept))):
        rows = published.tables.get(name)
        if rows is None:
            continue
        if len(rows) != len(places):
            wrong.append(f"{name} has {len(rows)} rows, the scores have {len(places)}")
            continue
        copies = scores.select(places)
        shared = [column for column in scores.column_names if column in rows.column_names]
        # By what they print as: NaN is equal to itself there.
        other = [column for column in shared if repr(values_of(copies, column)) != repr(values_of(rows, column))]
        wrong += [f"{column} of {name} is another one in scores" for column in other]
    return wrong


def values_of(rows: Dataset, column: str) -> list[Any]:
    """A column as it lies there, whatever a stranger says that it is: nothing in it is decoded or opened."""
    values: list[Any] = read_column(rows, column).to_pylist()
    return values


def numbers_of(rows: Dataset, column: str) -> NDArray[np.float64]:
    """A column of numbers, NaN where there is none: shape (rows,)."""
    # Straight from the table where it has all rows in order: a view of it would be made for each column.
    values = rows.data.column(column) if rows._indices is None else read_column(rows, column)
    return np.asarray(values.to_numpy(), dtype=np.float64)


def check_cut(published: PublishedSelection) -> Iterator[Check]:
    """The order of the kept rows, and that no dropped row below the cut is better than they are."""
    kept, dropped = published.scored.get("kept"), published.scored.get("dropped")
    if kept is None:
        yield Check("cut", Outcome.NOT_CHECKED, "the scores were not published")
        return
    if published.claims.get("targets"):
        yield from _check_turns(published, kept, dropped)
        return
    losses, ranks, cut = numbers_of(kept, LOG_LOSS), values_of(kept, RANK), published.claims["cut"]
    wrong = []
    if not np.isfinite(losses).all():
        wrong.append("a kept row has no score")
    elif (np.diff(losses) < 0).any() or ranks != sorted(ranks):
        wrong.append("the kept rows are not in the order of their scores")
    wrong += _wrong_kept_ranks(ranks, published.claims)
    worst = losses.max() if len(losses) else None
    if worst != cut:
        wrong.append(f"the worst kept row scores {worst!r}, the claimed cut is {cut!r}")
    if dropped is not None:
        wrong += _wrong_ranks(kept, dropped)
    if dropped is not None and REASON in dropped.column_names and cut is not None:
        below = np.array([reason == BELOW_THE_CUT for reason in values_of(dropped, REASON)], dtype=bool)
        if better := int((numbers_of(dropped, LOG_LOSS)[below] < cut).sum()):
            wrong.append(f"{better} rows dropped as below the cut score better than the cut")
    right = f"every kept row scores {cut:.6g} or better, in order" if len(losses) else "no row was kept"
    yield verdict("cut", wrong, right, ("selection.cut",))
    if odd := _odd_ties(list(published.scored.values())):
        finding = f"why row {few(odd)} ranks before a row of a lower number with the same score"
        yield Check("cut", Outcome.NOT_CHECKED, finding)


def _check_turns(published: PublishedSelection, kept: Dataset, dropped: Dataset | None) -> Iterator[Check]:
    """That targets took the rows in turn, which their numbers tell; which row is nearest only the targets would."""
    claims = published.claims
    examples = claims["targets"].get("examples")
    sides = [kept] if dropped is None else [kept, dropped]
    ranks = values_of(kept, RANK)
    wrong = [] if ranks == sorted(ranks) else ["the kept rows are not in the order of their ranks"]
    wrong += _wrong_kept_ranks(ranks, claims)
    if not np.isfinite(numbers_of(kept, LOG_LOSS)).all():
        wrong.append("a kept row has no score")
    if claims["cut"] is not None:
        wrong.append(f"the claimed cut is {claims['cut']!r}; rows that targets choose have none")
    if dropped is not None:
        wrong += _wrong_numbering(kept, dropped)
    if not isinstance(examples, int) or examples < 1 or any(TARGET not in side.column_names for side in sides):
        wrong.append(f"the rows do not say which of {examples!r} targets took them")
    else:
        places, targets = (
            np.concatenate([numbers_of(side, column) for side in sides]).astype(np.int64) for column in (RANK, TARGET)
        )
        taken = targets >= 0
        if (targets[taken] != (places[taken] - 1) % examples).any() or (targets < -1).any():
            wrong.append(f"the {examples} targets did not take turns: {TARGET} is not that of the rank")
    right = f"{len(kept):,} kept rows were taken by {examples} targets in turn"
    yield verdict("cut", wrong, right, ("selection.cut", "selection.targets"))
    finding = "that each target took the row nearest to it: target examples are not published"
    yield Check("cut", Outcome.NOT_CHECKED, finding)


def _wrong_kept_ranks(ranks: list[int], claims: dict[str, Any]) -> list[str]:
    """Ranks of kept rows that leave out more rows before the last of them than have a reason of their own."""
    without = (BELOW_THE_CUT, UNSCORED)
    passed_over = sum(number for reason, number in claims["reasons"].items() if not reason.startswith(without))
    if not ranks or (len(set(ranks)) == len(ranks) and min(ranks) > 0 and max(ranks) <= len(ranks) + passed_over):
        return []
    return [f"the ranks {few(ranks)} of the kept rows leave out rows that no reason accounts for, or come twice"]


def _odd_ties(sides: list[Dataset]) -> list[int]:
    """Rows that rank before another of a lower number with the same score; a dataset in another order has such."""
    if not sides or any(ROW not in side.column_names for side in sides):
        return []
    losses, ranks, numbers = (
        np.concatenate([numbers_of(side, column) for side in sides]) for column in (LOG_LOSS, RANK, ROW)
    )
    order = np.argsort(ranks, kind="stable")
    order = order[ranks[order] > 0]
    is_odd = (np.diff(losses[order]) == 0) & (np.diff(numbers[order]) < 0)
    return numbers[order[:-1]][is_odd].astype(np.int64).tolist() if len(order) else []


def _wrong_ranks(kept: Dataset, dropped: Dataset) -> list[str]:
    """Ranks of all rows that are not the order of their scores, 0 where there is none."""
    if wrong := _wrong_numbering(kept, dropped):
        return wrong
    ranks, losses = _ranks_and_losses(kept, dropped)
    order = np.argsort(ranks, kind="stable")[(ranks == 0).sum() :]
    return ["a row with a better score has a worse rank"] if (np.diff(losses[order]) < 0).any() else []


def _wrong_numbering(kept: Dataset, dropped: Dataset) -> list[str]:
    """Ranks of all rows that are not 1, 2, 3 …, 0 where there is no score."""
    ranks, losses = _ranks_and_losses(kept, dropped)
    if ((ranks > 0) != np.isfinite(losses)).any():
        return ["a row with a score has no rank, or the other way round"]
    if np.sort(ranks[ranks != 0]).tolist() != list(range(1, np.count_nonzero(ranks) + 1)):
        return ["the ranks of all rows are not 1, 2, 3 …, each once"]
    return []


def _ranks_and_losses(kept: Dataset, dropped: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ranks = np.concatenate([numbers_of(kept, RANK), numbers_of(dropped, RANK)]).astype(np.int64)
    return ranks, np.concatenate([numbers_of(kept, LOG_LOSS), numbers_of(dropped, LOG_LOSS)])


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
        expected = rule.predict({column: numbers_of(side, column) for column in rule.columns})
        equal = np.isclose(numbers_of(side, LOG_LOSS), expected, rtol=_SLACK, atol=_SLACK, equal_nan=True)
        rows += len(side)
        if not equal.all():
            numbers = np.array(values_of(side, ROW))[~equal].tolist()
            wrong.append(f"{name}: {len(numbers)} scores are not what the rule gives (row {few(numbers)})")
    is_known = shipped is not None and shipped.to_dict() == rule.to_dict()
    if not is_known:
        reason = f"the rule {rule.name!r} is none that im-datasets ships: what it says of itself and how it was fitted"
        yield Check("rule", Outcome.NOT_CHECKED, reason, RULE_ABOUT)
    if wrong or rows:
        finding = f"{rows:,} scores are what the rule {rule.name!r} gives for their indicators"
        yield verdict("rule", wrong, finding, ("record.rule",) if is_known else RULE_COMPUTED)


def check_statistics(published: PublishedSelection) -> Iterator[Check]:
    """Count, mean, spread, median and range of every column against the claims."""
    if published.record is None:
        return
    sides = list(published.scored.values())
    if len(sides) < 2:
        reason = "means and medians over all rows: the scores of the dropped rows were not published"
        yield Check("statistics", Outcome.NOT_CHECKED, reason, STATISTICS)
        return
    wrong, checked, counts = [], 0, {}
    columns = [name for name in (*score_columns(published.record), LOG_LOSS) if name in sides[0].column_names]
    for column in columns:
        if all(column in side.column_names for side in sides):
            counts[column] = int(sum(np.isfinite(numbers_of(side, column)).sum() for side in sides))
            if counts[column] and column not in published.record.statistics:
                wrong.append(f"the record lacks the statistics of {column}")
    for column, claims in published.record.statistics.items():
        if any(column not in side.column_names for side in sides):
            wrong.append(f"the record has statistics of {column}, which is not there")
            continue
        values = np.concatenate([numbers_of(side, column) for side in sides])
        fresh, checked = describe(values), checked + 1
        wrong += [
            f"{name} of {column} is {fresh.get(name)}, claimed is {claim}"
            for name, claim in claims.items()
            if not math.isclose(claim, fresh.get(name, math.nan), rel_tol=_SLACK, abs_tol=_SLACK)
        ]
    wrong += _wrong_unscored(published, published.record, counts)
    finding = f"count, mean, spread, median and range of {checked} columns are as claimed"
    yield verdict("statistics", wrong, finding, STATISTICS)


def _wrong_unscored(published: PublishedSelection, record: ScoringRecord, counts: dict[str, int]) -> list[str]:
    """Indicators that scored more or fewer of the rows with a pair than the record says."""
    sides, of_no_value = list(published.scored.values()), {f"no {column}" for column in score_columns(record)}
    if any(UNSCORABLE not in side.column_names for side in sides):
        return []
    reasons = [reason or "" for side in sides for reason in values_of(side, UNSCORABLE)]
    pairs = sum(reason == "" or reason in of_no_value for reason in reasons)
    wrong = []
    for indicator in record.indicators:
        scored = [counts[column] for column in indicator.writes if column in counts]
        if scored and indicator.unscored != pairs - min(scored):
            wrong.append(
                f"{indicator.name} left {pairs - min(scored)} rows without a value, claimed {indicator.unscored}"
            )
    return wrong
