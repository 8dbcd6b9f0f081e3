"""Selection and record → the dataset card ``README.md`` and its figures, without the network.

Every fact comes from the run or from the caller. A licence or language that was not given is left out of the
front matter and asked for in the text.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from im_datasets import figures
from im_datasets.indicators.base import COLUMNS
from im_datasets.overview import Scores, asked, headline, scored_rows, shortfall
from im_datasets.record import IndicatorRecord, ScoringRecord
from im_datasets.rule import LOG_LOSS, LinearRule, Term
from im_datasets.selection import Selection
from im_datasets.templates import (
    Trusted,
    escape_markdown,
    format_bounds,
    format_fact,
    markdown_environment,
    one_line,
    read_template,
    told_facts,
    write_bytes,
    write_text,
)

CARD = "README.md"
FIGURE, PANELS = "figures/score_distribution.png", "figures/indicators.png"
DATA_FILES = {"kept": "kept.parquet", "dropped": "dropped.parquet"}
"""Config → data file; the first config is the default."""

TAGS = ("im-datasets", "instruction-mining")
_SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
"""The Hub's size categories; each next one has a digit more."""

logger = logging.getLogger(__name__)


def write_card(
    selection: Selection,
    record: ScoringRecord,
    folder: str | Path,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    pretty_name: str | None = None,
    data_files: Mapping[str, str] = DATA_FILES,
) -> Path:
    """Write ``README.md`` and its figures into a folder, each file whole or not at all.

    Args:
        selection: What was kept and dropped, with the score columns.
        record: Where the scores came from.
        folder: Where to write; made when it is missing.
        license: Licence id of the rows, as the Hub names it; left out and asked for when None.
        language: Language code or codes of the rows; left out and asked for when None.
        pretty_name: Title of the dataset; None names the source.
        data_files: Config name → data file beside the card; the first is the default.

    Returns:
        The path of the card.

    Raises:
        OutputError: The template is missing from the installation.
    """
    folder, scores = Path(folder), Scores.of(selection)
    write_bytes(folder / FIGURE, figures.as_png(figures.score_distribution(scores)))
    write_bytes(folder / PANELS, figures.as_png(figures.indicator_panels(scores)))
    for hint in missing_facts(license, language):
        logger.info("%s", hint)
    card = render_card(
        selection,
        record,
        license=license,
        language=language,
        pretty_name=pretty_name,
        data_files=data_files,
    )
    return write_text(folder / CARD, card)


def render_card(
    selection: Selection,
    record: ScoringRecord,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    pretty_name: str | None = None,
    figure: str | None = FIGURE,
    panels: str | None = PANELS,
    data_files: Mapping[str, str] = DATA_FILES,
) -> str:
    """The dataset card as Markdown with YAML front matter.

    Args:
        selection: What was kept and dropped, with the score columns.
        record: Where the scores came from.
        license: Licence id of the rows; left out and asked for when None.
        language: Language code or codes of the rows; left out and asked for when None.
        pretty_name: Title of the dataset; None names the source.
        figure: Path of the score distribution beside the card; None = no such figure.
        panels: Path of the indicator figure beside the card; None = no such figure.
        data_files: Config name → data file beside the card; the first is the default.

    Raises:
        OutputError: The template is missing from the installation.
    """
    scores = Scores.of(selection)
    kept, dropped = len(selection.kept), len(selection.dropped)
    template = markdown_environment().from_string(read_template("dataset_card.md"))
    return template.render(
        front_matter=Trusted(_front_matter(kept, record, license, language, pretty_name, data_files)),
        title=pretty_name or f"Selected rows of {_source(record)}",
        headline=headline(kept, kept + dropped),
        source=_source(record),
        hints=missing_facts(license, language),
        rule=_rule(record.rule),
        rows=kept + dropped,
        kept=kept,
        reasons=selection.reasons,
        unscored=kept + dropped - scored_rows(scores.both(LOG_LOSS)),
        score=COLUMNS[LOG_LOSS],
        cut=selection.cut,
        figure=figure and _link(figure),
        panels=panels and _link(panels),
        facts=_listing(record.source),
        asked=_listing(asked(selection)),
        shortfall=shortfall(selection),
        columns=_listing(record.columns),
        versions=_listing({"im-datasets": record.package_version} | record.versions),
        comparisons=[scores.compare(name) for name in scores.indicators],
        added=[COLUMNS[name] for name in scores.kept],
        indicators=[_indicator(indicator) for indicator in record.indicators],
        command=record.command and _command(record.command),
    )


def missing_facts(license: str | None, language: str | Sequence[str] | None) -> list[str]:
    """What nobody but the publisher can know, and how to add it.

    Args:
        license: Licence id of the rows, or None.
        language: Language code or codes of the rows, or None.

    Returns:
        One sentence per missing fact.
    """
    hints = []
    if not license:
        hints.append(
            "the licence of the rows was not given; pass license= (--license), for example cc-by-4.0, "
            "as the source's terms allow"
        )
    if not language:
        hints.append("the language of the rows was not given; pass language= (--language), for example en")
    return hints


def _front_matter(
    kept: int,
    record: ScoringRecord,
    license: str | None,
    language: str | Sequence[str] | None,
    pretty_name: str | None,
    data_files: Mapping[str, str],
) -> str:
    """The front matter as YAML, every text one printable line."""
    from huggingface_hub import DatasetCardData

    languages = [language] if isinstance(language, str) else list(language or ())
    data = DatasetCardData(
        language=[one_line(code) for code in languages] or None,
        license=one_line(license) if license else None,
        pretty_name=one_line(pretty_name) if pretty_name else None,
        tags=list(TAGS),
        size_categories=[_size_category(kept)],
        source_datasets=[_source(record)] if record.source.get("kind") == "hub" else None,
        configs=_configs(data_files),
    )
    return data.to_yaml(line_break="\n")


def _configs(data_files: Mapping[str, str]) -> list[dict[str, Any]]:
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in data_files.items()
    ]
    return [configs[0] | {"default": True}, *configs[1:]] if configs else []


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> _size_category(999), _size_category(1000), _size_category(10**12)
    ('n<1K', '1K<n<10K', 'n>1T')
    """
    return _SIZES[min(max(len(str(rows)) - 3, 0), len(_SIZES) - 1)]


def _source(record: ScoringRecord) -> str:
    return one_line(record.source.get("id") or "a dataset without a name")


def _link(path: str) -> Trusted:
    from urllib.parse import quote

    return Trusted(quote(path, safe="/"))


def _command(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words)


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The rule as the template shows it."""
    shown = LinearRule.from_dict(rule)
    return {
        "name": shown.name,
        "title": shown.title,
        "intercept": shown.intercept,
        "terms": [_term(term) for term in shown.terms],
        "target": shown.target,
        "aggregation": shown.aggregation,
        "provenance": told_facts(shown.provenance),
        "caveats": shown.caveats,
    }


def _term(term: Term) -> dict[str, Any]:
    return {
        "column": term.column,
        "coefficient": term.coefficient,
        "bounds": format_bounds(term.low, term.high),
    }


def _indicator(indicator: IndicatorRecord) -> dict[str, Any]:
    told = {"name": indicator.name, "version": indicator.version}
    counts = {"unscored": indicator.unscored, "truncated": indicator.truncated}
    texts = {"model": format_fact(indicator.model or {}), "settings": format_fact(indicator.settings)}
    return told | counts | texts


def _listing(facts: Mapping[str, Any]) -> Trusted:
    """Facts in one line of Markdown."""
    told = [f"{escape_markdown(name)} {escape_markdown(value)}" for name, value in told_facts(facts)]
    return Trusted(" · ".join(told) or "nothing")
