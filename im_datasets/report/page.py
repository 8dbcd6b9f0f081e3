"""Selection and record → ``report.html``: one self-contained page that shows what was kept and why.

The page loads nothing. Its one script sorts and filters a table that is complete without it, and the page's
content security policy lets no other script run. Statistics come from the score columns; only the rows that are
shown are read as texts.
"""

import base64
import hashlib
import math
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from im_datasets.common.storage import write_text
from im_datasets.common.untrusted import shown
from im_datasets.data.arrow import read_column, undecoded
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.report import figures, plot_style
from im_datasets.report.formatting import (
    by_targets,
    fact_texts,
    format_bounds,
    format_count,
    format_number,
    headline,
    read_in_part,
    shortfall,
    source_name,
)
from im_datasets.report.statistics import (
    Comparison,
    FloatArray,
    Scores,
    contributions,
    mean_contributions,
    request_settings,
    score_columns,
    scored_rows,
)
from im_datasets.report.templates import html_environment, read_template
from im_datasets.rules.linear import LOG_LOSS, Term
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import BELOW_THE_CUT, RANK, REASON, ROW, Selection

SHORT, LONGEST = 180, 20_000
"""Characters of a text that are shown at once, and at most."""

PLACES = {"best": "Best", "borderline": "Borderline", "worst": "Worst", "reason": "By reason", "all": "All"}
_SHORT_LINES, _PER_REASON = 6, 3


@dataclass(frozen=True)
class Text:
    """A text as the page shows it: shortened, and whole where that is more; ``cut`` is 0 where nothing is cut."""

    short: str
    full: str | None
    length: int
    cut: int

    @classmethod
    def of(cls, text: str) -> "Text":
        """Shorten a text."""
        if len(text) <= SHORT and text.count("\n") < _SHORT_LINES:
            return cls(text, None, len(text), 0)
        short = " ".join(text[: 4 * SHORT].split())
        short = short if len(short) <= SHORT else short[: SHORT - 1] + "…"
        return cls(short, text[:LONGEST], len(text), LONGEST if len(text) > LONGEST else 0)


def write_report(
    selection: Selection,
    record: ScoringRecord,
    path: str | Path,
    *,
    rows_per_table: int = 30,
) -> Path:
    """Write the report beside its place and move it there when it is whole.

    Args:
        selection: What was kept and dropped, with the score columns.
        record: Where the scores came from, and where instruction and response stand in the rows.
        path: The file to write; an older one is replaced.
        rows_per_table: Rows shown as best, around the cut and as worst, each.

    Returns:
        The path.

    Raises:
        OutputError: The templates are missing from the installation.
    """
    return write_text(path, render_report(selection, record, rows_per_table=rows_per_table))


def render_report(selection: Selection, record: ScoringRecord, *, rows_per_table: int = 30) -> str:
    """The report as HTML text; arguments as for ``write_report``."""
    from markupsafe import Markup

    scores = Scores.of(selection, record)
    script = read_template("report.js")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    terms = [_term(term) for term in record.rule.terms]
    # Styles, script and figures are the page's own and stand unescaped; every other value is escaped.
    template = html_environment().from_string(read_template("report.html"))
    return template.render(
        record=record,
        source_facts=fact_texts(record.source),
        column_facts=fact_texts(record.columns.to_dict()),
        versions={"im-datasets": record.package_version} | record.versions,
        rule=record.rule,
        terms=terms,
        score=COLUMNS[LOG_LOSS],
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=Markup(f"sha256-{script_hash}"),  # noqa: S704 - base64
        style=Markup(read_template("report.css")),  # noqa: S704 - our own file
        figures=_figures(scores, _better_but_dropped(selection, scores)),
        panels=_panels(scores, record.rule.columns),
        table=_table(selection, record, scores, rows_per_table),
        rows_per_table=rows_per_table,
        places=PLACES,
        sort_keys={"rank": "Rank", "score": "Score"} | {f"term{i}": t["short"] for i, t in enumerate(terms)},
        command=shlex.join(record.command) if record.command else None,
        **_counts(selection, record, scores),
    )


def _counts(selection: Selection, record: ScoringRecord, scores: Scores) -> dict[str, Any]:
    kept, dropped = len(selection.kept), len(selection.dropped)
    return {
        "rows": kept + dropped,
        "part": read_in_part(record.source),
        "kept": kept,
        "dropped": dropped,
        "unscored": kept + dropped - scored_rows(scores.both(LOG_LOSS)),
        "cut": selection.cut,
        "targets": selection.settings.get("targets"),
        "reasons": selection.reasons,
        "request": fact_texts(request_settings(selection)),
        "source": source_name(record.source),
        "caveats": record.rule.caveats,
        "headline": headline(kept, kept + dropped),
        "why": f"{_why(selection, record, scores)} {shortfall(selection.settings.get('shortfall'))}".rstrip(),
    }


def _why(selection: Selection, record: ScoringRecord, scores: Scores) -> str:
    name = shown(record.rule.name)
    if not len(selection.kept):
        return f"Scored by the rule {name}. No row was kept; the drop reasons below say why."
    if targets := selection.settings.get("targets"):
        choice, beside = by_targets(targets), "Otherwise"
        chosen_by: Collection[str] = ["im_target_similarity"]
    else:
        choice = f"Chosen by the rule {name}: the lowest scores, up to a cut at {format_number(selection.cut)}."
        beside = "Outside the rule,"
        chosen_by = record.rule.columns
    # That they differ in the columns that they were chosen by is no finding.
    comparisons = [scores.compare(name) for name in scores.indicators if name not in chosen_by]
    differing = [c for c in comparisons if math.isfinite(c.superiority) and c.superiority != 0.5]
    if not differing:
        return choice
    first = max(differing, key=lambda comparison: abs(comparison.superiority - 0.5))
    return f"{choice} {beside} kept and dropped rows differ most in {first.column.name}. {_sentence(first)}"


def _sentence(comparison: Comparison) -> str:
    """What the superiority of one side means, in words."""
    share = comparison.superiority
    if not math.isfinite(share):
        return "One side has no value to compare."
    higher = "higher" if share >= 0.5 else "lower"
    percent = 100 * max(share, 1 - share)
    if percent < 50.5:
        return "Kept and dropped rows are alike in it."
    return f"A kept row has the {higher} value in {percent:.0f} % of its pairs with dropped ones."


def _term(term: Term) -> dict[str, Any]:
    column = COLUMNS.get(term.column)
    return {
        "column": term.column,
        "short": term.column.removeprefix("im_"),
        "meaning": f"{column.meaning}, in {column.unit}" if column else "a column of the dataset",
        "coefficient": term.coefficient,
        "bounds": format_bounds(term.low, term.high),
    }


def _figures(scores: Scores, better: int) -> dict[str, Any]:
    widths = {"wide": figures.WIDE, "narrow": figures.NARROW}
    label = "Histogram of the scores of kept and dropped rows, with the cut"
    length = "Share of rows kept in ten groups by length"
    return {
        "scores": {
            name: _svg(figures.score_distribution(scores, width=width), f"scores-{name}", label)
            for name, width in widths.items()
        },
        "scores_caption": _scores_caption(scores, better),
        "correlations": _svg(figures.correlations(scores), "correlations", "Rank correlations of the indicators"),
        "lengths": [_svg(drawn, f"lengths-{name}", length) for name, drawn in figures.lengths(scores).items()],
    }


def _better_but_dropped(selection: Selection, scores: Scores) -> int:
    """Rows whose score lies up to the cut and that were dropped all the same, but not as ties at the cut."""
    better = scores.dropped[LOG_LOSS] <= (-math.inf if selection.cut is None else selection.cut)
    if not better.any():
        return 0
    others = read_column(selection.dropped, REASON).to_numpy(zero_copy_only=False) != BELOW_THE_CUT
    return int((others & better).sum())


def _scores_caption(scores: Scores, better: int) -> str:
    unscored = int(np.isnan(scores.both(LOG_LOSS)).sum())
    caption = "Rows beyond the ends of the axis are counted in the first and the last bar."
    caption += f" {format_count(unscored)} rows without a score are not drawn." if unscored else ""
    if scores.cut is None:
        return caption
    if not better:
        return f"No row with a score below the cut was dropped. {caption}"
    return f"{format_count(better)} rows with a score up to the cut were dropped for another reason. {caption}"


def _svg(figure: Any, name: str, label: str) -> Any:
    from markupsafe import Markup

    return Markup(plot_style.as_svg(figure, name=name, label=label))  # noqa: S704 - drawn here, without data texts


def _panels(scores: Scores, in_rule: Collection[str]) -> Iterator[dict[str, Any]]:
    """One per indicator, those of the rule first."""
    for name in sorted(scores.indicators, key=lambda name: name not in in_rule):
        comparison = scores.compare(name)
        yield {
            "column": comparison.column,
            "kept": comparison.kept,
            "dropped": comparison.dropped,
            "sentence": _sentence(comparison),
            "in_rule": name in in_rule,
            "svg": _svg(figures.indicator_panel(scores, name), f"panel-{name}", f"{name} of kept and dropped rows"),
        }


def _table(selection: Selection, record: ScoringRecord, scores: Scores, number: int) -> list[dict[str, Any]]:
    """The rows to show, best first, each once, with every group it belongs to."""
    places: dict[tuple[bool, int], list[str]] = {}
    for place, row in _chosen(selection, scores, number):
        places.setdefault(row, []).append(place)
    table: list[dict[str, Any]] = [
        *_side(selection.kept, record, {row: p for (kept, row), p in places.items() if kept}, kept=True),
        *_side(selection.dropped, record, {row: p for (kept, row), p in places.items() if not kept}, kept=False),
    ]
    _add_bars(table, mean_contributions(record.rule, scores))
    return sorted(table, key=lambda row: (row["rank"] is None, row["rank"] or row["row"]))


def _add_bars(table: list[dict[str, Any]], average: list[float]) -> None:
    """Give each term the length and side of its bar: how far the row is from the average row, -1..1."""
    swings = [[term["added"] - mean for term, mean in zip(row["terms"], average, strict=True)] for row in table]
    largest = max((abs(swing) for row in swings for swing in row if math.isfinite(swing)), default=0.0)
    for row, bars in zip(table, swings, strict=True):
        for term, swing in zip(row["terms"], bars, strict=True):
            term["bar"] = swing / largest if math.isfinite(swing) and largest else 0.0


def _chosen(selection: Selection, scores: Scores, number: int) -> Iterator[tuple[str, tuple[bool, int]]]:
    """Which rows to show: (group, (is it kept, its index on that side))."""
    kept, dropped = scores.kept[LOG_LOSS], scores.dropped[LOG_LOSS]
    sides = [read_column(side, RANK).to_numpy() for side in (selection.kept, selection.dropped) if len(side)]
    ranks = np.concatenate([*sides, np.empty(0, dtype=np.int64)])
    # A row without a score has the rank 0.
    order = np.argsort(ranks, kind="stable")[np.count_nonzero(ranks == 0) :]
    ends = (("best", order[:number]), ("worst", order[::-1][:number]))
    for place, rows in ends:
        yield from ((place, (row < len(kept), row - (row >= len(kept)) * len(kept))) for row in rows.tolist())
    if selection.cut is not None:
        yield from (("borderline", (True, row)) for row in _nearest(kept, selection.cut, number // 2))
        yield from (("borderline", (False, row)) for row in _nearest(dropped, selection.cut, number - number // 2))
    yield from (("reason", (False, row)) for row in _of_each_reason(selection.dropped))


def _of_each_reason(dropped: Dataset) -> list[int]:
    """The first rows of every reason, in row order."""
    if not len(dropped):
        return []
    codes = read_column(dropped, REASON).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return sorted(
        row for code in range(codes.max() + 1) for row in np.flatnonzero(codes == code)[:_PER_REASON].tolist()
    )


def _nearest(losses: FloatArray, cut: float, number: int) -> list[int]:
    distance = np.abs(losses - cut)
    nearest: list[int] = np.argsort(distance, kind="stable")[: min(number, scored_rows(distance))].tolist()
    return nearest


def _side(
    rows: Dataset, record: ScoringRecord, places: dict[int, list[str]], *, kept: bool
) -> Iterator[dict[str, Any]]:
    indices = sorted(places)
    if not indices:
        return
    # The only texts that are read: those of the rows shown. Other columns may hold what Python cannot.
    needed = {*record.columns.mapping.values(), LOG_LOSS, *score_columns(record), REASON, ROW, RANK, UNSCORABLE}
    columns = [name for name in rows.column_names if name in needed]
    batch = undecoded(rows.select(indices).select_columns(columns))[:]
    pairs = record.columns.pairs(batch)
    measured = {name: column for name, column in batch.items() if name in {LOG_LOSS, *score_columns(record)}}
    for i, index in enumerate(indices):
        # A rule may read a column of the dataset's own, which may hold anything.
        values = {n: float(v[i]) if isinstance(v[i], int | float) else math.nan for n, v in measured.items()}
        loss = values.get(LOG_LOSS, math.nan)
        yield {
            "places": places[index],
            "kept": kept,
            "reason": "" if kept else str(batch[REASON][i]),
            "row": int(batch[ROW][i]),
            "rank": batch[RANK][i] or None,
            "score": {"value": loss, "sort": _sort_key(loss)},
            "unreadable": pairs.reasons[i],
            "unscorable": batch[UNSCORABLE][i] if UNSCORABLE in batch else "",
            "instruction": Text.of(pairs.instructions[i]),
            "response": Text.of(pairs.responses[i]),
            "terms": [
                {"added": part, "sort": _sort_key(part), "value": values.get(term.column, math.nan)}
                for term, part in zip(record.rule.terms, contributions(record.rule, values), strict=True)
            ],
        }


def _sort_key(value: float) -> str:
    """What the page's script sorts by: every digit, nothing where there is no number."""
    return repr(value) if math.isfinite(value) else ""
