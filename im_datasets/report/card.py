"""Selection and record → the text of the dataset card ``README.md``, without the network.

Every fact comes from the run or from the caller. A licence or language that was not given is left out of the
front matter and asked for in the text. Putting the card into one that is already there is left to ``card_merge``.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from im_datasets.data.columns import SOURCE_ROW, TURN
from im_datasets.indicators.score_columns import COLUMNS, describe_column
from im_datasets.report.card_blocks import find_blocks, marker
from im_datasets.report.card_facts import NO_FACTS, CardFacts, missing_facts
from im_datasets.report.card_metadata import as_yaml, card_metadata
from im_datasets.report.configs import MANIFEST, Config
from im_datasets.report.formatting import (
    Trusted,
    by_targets,
    fact_texts,
    format_fact,
    headline,
    read_in_part,
    shortfall,
    source_name,
)
from im_datasets.report.statistics import Scores, request_settings, scored_rows
from im_datasets.report.templates import escape_markdown, markdown_environment, read_template
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import REASON, Selection

if TYPE_CHECKING:
    from datasets import DatasetInfo
    from jinja2 import Template

FIGURE, PANELS = "figures/score_distribution.png", "figures/indicators.png"
CONFIGS = {
    "kept": "the chosen rows, best first",
    "dropped": "the other rows",
    "scores": "the number, rank and scores of every row, without its text",
}
"""Config → what is in it; the first that is published is the default."""

_DIGEST = re.compile(r"(?<![0-9a-zA-Z])([0-9a-f]{12})[0-9a-f]{52}(?![0-9a-zA-Z])")
_PLAIN_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)
_PLAIN_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)


@dataclass(frozen=True)
class Card:
    """A rendered card.

    Attributes:
        metadata: The front matter as data; all of it generated.
        body: The Markdown after it.
    """

    metadata: dict[str, Any]
    body: str

    @property
    def blocks(self) -> dict[str, str]:
        """Name → text of the generated parts."""
        return find_blocks(self.body)

    def __str__(self) -> str:
        return f"---\n{as_yaml(self.metadata)}\n---\n\n{self.body}"


def render_card(
    selection: Selection,
    record: ScoringRecord | None,
    facts: CardFacts = NO_FACTS,
    *,
    figure: str | None = FIGURE,
    panels: str | None = PANELS,
    configs: Mapping[str, Config] | None = None,
    infos: Mapping[str, "DatasetInfo"] | None = None,
    digests: Mapping[str, str] | None = None,
    original: bool = False,
) -> Card:
    """The dataset card: YAML front matter and Markdown.

    Args:
        selection: What was kept and dropped, with the score columns.
        record: Where the scores came from; None where that is not known, which the card then says.
        facts: What the publisher says of the rows.
        figure: Path of the score distribution beside the card; None = no such figure.
        panels: Path of the indicator figure beside the card; None = no such figure.
        configs: Config name → its files beside the card, the first is the default; None is what ``mine`` writes.
        infos: Config name → features and sizes for the front matter; None leaves them out.
        digests: Path → sha256 of the configs' files, which the front matter then names; None leaves them out.
        original: Whether kept and dropped rows are published without the columns of this package.

    Raises:
        OutputError: The template is missing from the installation.
    """
    configs = mined_configs(selection) if configs is None else configs
    body = _template().render(
        **_counts(selection, record),
        **_origin(record),
        title=facts.pretty_name or f"Selected rows of {source_name(record.source if record else {})}",
        block=marker,
        contents=_contents(configs, original=original),
        hints=missing_facts(facts.license, facts.language),
        # Both stand in code that a reader runs, so what could end a string there is left out.
        repo_id=facts.repo_id if _PLAIN_ID.fullmatch(facts.repo_id or "") else None,
        revision=facts.revision if _PLAIN_REVISION.fullmatch(facts.revision or "") else None,
        record_file=MANIFEST if facts.repo_id else "record.json",
        configs=[
            {"name": name, "rows": config.rows, "what": _content(name, original=original)}
            for name, config in configs.items()
        ],
        tells_all="scores" in configs or ("dropped" in configs and not original),
        is_expanded=SOURCE_ROW in selection.kept.column_names,
        is_by_turn=TURN in selection.kept.column_names,
        figure=figure and Trusted(quote(figure)),
        panels=panels and Trusted(quote(panels)),
        original=original,
        tells_reasons=any(REASON in config.columns for config in configs.values()),
        terms=_licence_sentences(record, facts),
    )
    metadata = card_metadata(len(selection.kept), record, facts, configs, digests or {}, infos or {})
    return Card(metadata, body.strip("\n") + "\n")


@cache
def _template() -> "Template":
    return markdown_environment().from_string(read_template("dataset_card.md"))


def mined_configs(selection: Selection) -> dict[str, Config]:
    """The configs of the folder that ``mine`` writes.

    `datasets` cannot open a config without rows, so one of no dropped rows is left out. One of no kept rows stays, for
    else the dropped rows would be what a reader gets who asks for none by name.
    """
    sides = {"kept": selection.kept, "dropped": selection.dropped}
    return {
        name: Config(len(rows), list(rows.column_names), [f"{name}.parquet"])
        for name, rows in sides.items()
        if len(rows) or name == "kept"
    }


def _counts(selection: Selection, record: ScoringRecord | None) -> dict[str, Any]:
    """What came of the selection, in numbers."""
    scores = Scores.of(selection, record)
    kept, rows = len(selection.kept), len(selection.kept) + len(selection.dropped)
    return {
        "headline": headline(kept, rows),
        "source": source_name(record.source if record else {}),
        "part": read_in_part(record.source) if record else "",
        "rows": rows,
        "kept": kept,
        "unscored": rows - scored_rows(scores.both(LOG_LOSS)),
        "reasons": selection.reasons,
        "cut": selection.cut,
        "targets": selection.settings.get("targets"),
        "choice": by_targets(selection.settings.get("targets")),
        "request": _listing(request_settings(selection)),
        "shortfall": shortfall(selection.settings.get("shortfall")),
        "score": COLUMNS[LOG_LOSS],
        "comparisons": [scores.compare(name) for name in scores.indicators],
        "added": [describe_column(name) for name in scores.kept],
    }


def _origin(record: ScoringRecord | None) -> dict[str, Any]:
    """Where the scores came from; the rule is None where that is not known."""
    if record is None:
        unknown = dict.fromkeys(("rule", "provenance", "columns", "versions", "command", "package_version"))
        return {**unknown, "facts": Trusted("not known"), "indicators": []}
    return {
        "rule": record.rule,
        "provenance": fact_texts(record.rule.provenance),
        "facts": _listing(record.source),
        "columns": _listing(record.columns.to_dict()),
        "versions": _listing({"im-datasets": record.package_version} | record.versions),
        "indicators": [
            vars(each) | {name: _short(format_fact(getattr(each, name) or {})) for name in ("model", "settings")}
            for each in record.indicators
        ],
        "command": record.command and _command(record.command),
        "package_version": record.package_version,
    }


def _content(name: str, *, original: bool) -> str:
    return CONFIGS[name] + (", each with its reason" if name == "dropped" and not original else "")


def _contents(configs: Mapping[str, Config], *, original: bool) -> str:
    """What the reader finds in the repository."""
    if "kept" not in configs:
        return "The texts are not here, only the scores of every row."
    if "dropped" in configs:
        return f"Both sides are here: the kept rows, best first, and {_content('dropped', original=original)}."
    more = "; the scores of all rows are here too" if "scores" in configs else ""
    return f"The kept rows are here, best first{more}."


def _licence_sentences(record: ScoringRecord | None, facts: CardFacts) -> list[str]:
    """Whose rows these are and under which terms, as far as anybody said."""
    link = f" ({facts.license_link})" if facts.license_link else ""
    named = facts.license_name or facts.license or "not given"
    sentences = [f"Licence of these rows, as their publisher states it: {named}{link}."]
    if record and record.source.get("kind") == "hub":
        at = f" at revision {record.source['revision']}" if record.source.get("revision") else ""
        sentences.append(
            f"The rows are from the dataset {source_name(record.source)} on the Hub{at}; credit is due to its authors."
        )
    source = facts.source_terms or {}
    if source.get("license"):
        stated = [source[name] for name in ("license", "license_name", "license_link") if source.get(name)]
        sentences.append(
            f"Licence that the source's own card states: {', '.join(stated)}. Its terms hold for these rows."
        )
    return sentences


def _command(words: Sequence[str]) -> str:
    """One line that a shell reads as these words; nothing in it can look like a line of the card."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_c_escaped(word)}'" for word in words)


def _c_escaped(word: str) -> str:
    # The backslash first: the other escapes bring new ones.
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped)


def _short(text: str) -> str:
    """A text with every digest cut to its beginning: the whole one stands in the record, and a phone is narrow.

    >>> _short("sha256:" + "0123456789abcdef" * 4)
    'sha256:0123456789ab…'
    """
    return _DIGEST.sub(r"\1…", text)


def _listing(facts: Mapping[str, Any]) -> Trusted:
    """Facts in one line of Markdown."""
    texts = [f"{escape_markdown(name)} {escape_markdown(_short(value))}" for name, value in fact_texts(facts)]
    return Trusted(" · ".join(texts) or "nothing")
