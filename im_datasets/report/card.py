"""Selection and record → the dataset card ``README.md`` and its figures, without the network.

Every fact comes from the run or from the caller. A licence or language that was not given is left out of the
front matter and asked for in the text. The generated parts stand between markers; putting them into a card that
is already there is left to ``card_merge``.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.storage import write_bytes, write_text
from im_datasets.data.columns import SOURCE_ROW, TURN
from im_datasets.indicators.score_columns import COLUMNS, describe_column
from im_datasets.report import figures, plot_style
from im_datasets.report.card_facts import CardFacts, missing_facts
from im_datasets.report.configs import MANIFEST, Config, Published
from im_datasets.report.formatting import Trusted, fact_texts, format_fact, headline, one_line, read_in_part, shortfall
from im_datasets.report.statistics import Scores, request_settings, scored_rows
from im_datasets.report.templates import escape_markdown, markdown_environment, read_template
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.selection.select import REASON, Selection

if TYPE_CHECKING:
    from datasets import DatasetInfo

CARD = "README.md"
STANDALONE = ".huggingface.yaml"
"""A file that `datasets` reads after the card's front matter, so that its fields count and the card's do not."""

FIGURE, PANELS = "figures/score_distribution.png", "figures/indicators.png"
CONFIGS = {
    "kept": "the chosen rows, best first",
    "dropped": "the other rows",
    "scores": "the number, rank and scores of every row, without its text",
}
"""Config → what is in it; the first that is published is the default."""

TAGS = ("im-datasets", "instruction-mining")
_SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
"""The Hub's size categories; each next one has a digit more."""

_BLOCK = re.compile(
    r"^<!-- im-datasets:begin (?P<name>\w+) -->\n(?P<text>.*?)^<!-- im-datasets:end (?P=name) -->$",
    re.MULTILINE | re.DOTALL,
)
_DIGEST = re.compile(r"(?<![0-9a-zA-Z])([0-9a-f]{12})[0-9a-f]{52}(?![0-9a-zA-Z])")
_PLAIN_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)
_PLAIN_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)

_NO_FACTS = CardFacts()

logger = logging.getLogger(__name__)


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


def find_blocks(body: str) -> dict[str, str]:
    """The generated parts of a card, by name: what stands between their markers."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(body)}


def replace_blocks(body: str, blocks: Mapping[str, str]) -> str:
    """A card's text with these generated parts in place of those of the same names."""
    return _BLOCK.sub(lambda match: as_block(match["name"], blocks.get(match["name"], match["text"])), body)


def as_block(name: str, text: str) -> str:
    """A generated part between its markers."""
    return f"{_marker(name)}\n{text}{_marker(name, end=True)}"


def block_digests(blocks: Mapping[str, str]) -> dict[str, str]:
    """Name → sha256 of a generated part."""
    return {name: sha256(text.encode()).hexdigest() for name, text in blocks.items()}


def _marker(name: str, *, end: bool = False) -> str:
    return f"<!-- im-datasets:{'end' if end else 'begin'} {name} -->"


def write_card(
    selection: Selection,
    record: ScoringRecord | None,
    folder: str | Path,
    facts: CardFacts = _NO_FACTS,
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


def render_card(
    selection: Selection,
    record: ScoringRecord | None,
    facts: CardFacts = _NO_FACTS,
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
    template = markdown_environment().from_string(read_template("dataset_card.md"))
    body = template.render(
        **_counts(selection, record),
        **_scores(selection, record),
        **_origin(record),
        title=facts.pretty_name or f"Selected rows of {_source(record)}",
        block=_marker,
        here=_here(configs, original=original),
        hints=missing_facts(facts.license, facts.language),
        repo_id=facts.repo_id if _PLAIN_ID.fullmatch(facts.repo_id or "") else None,
        revision=facts.revision if _PLAIN_REVISION.fullmatch(facts.revision or "") else None,
        record_file=MANIFEST if facts.repo_id else "record.json",
        configs=[
            {"name": name, "rows": config.rows, "what": _what(name, original=original)}
            for name, config in configs.items()
        ],
        tells_all="scores" in configs or ("dropped" in configs and not original),
        is_expanded=SOURCE_ROW in selection.kept.column_names,
        is_by_turn=TURN in selection.kept.column_names,
        figure=figure and _link(figure),
        panels=panels and _link(panels),
        original=original,
        tells_reasons=any(REASON in config.columns for config in configs.values()),
        terms=_terms(record, facts),
    )
    front = _configs(configs, digests or {})
    return Card(_metadata(len(selection.kept), record, facts, front, infos or {}), body.strip("\n") + "\n")


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
    kept, dropped = len(selection.kept), len(selection.dropped)
    return {
        "headline": headline(kept, kept + dropped),
        "source": _source(record),
        "part": read_in_part(record.source) if record else "",
        "rows": kept + dropped,
        "kept": kept,
        "reasons": selection.reasons,
        "cut": selection.cut,
        "asked": _listing(request_settings(selection)),
        "shortfall": shortfall(selection.settings.get("shortfall")),
    }


def _scores(selection: Selection, record: ScoringRecord | None) -> dict[str, Any]:
    scores = Scores.of(selection, record)
    rows = len(selection.kept) + len(selection.dropped)
    return {
        "score": COLUMNS[LOG_LOSS],
        "unscored": rows - scored_rows(scores.both(LOG_LOSS)),
        "comparisons": [scores.compare(name) for name in scores.indicators],
        "added": [describe_column(name) for name in scores.kept],
    }


def _origin(record: ScoringRecord | None) -> dict[str, Any]:
    """Where the scores came from; the rule is None where that is not known."""
    if record is None:
        told = dict.fromkeys(("rule", "provenance", "columns", "versions", "command", "package_version"))
        return {**told, "facts": Trusted("not known"), "indicators": []}
    return {
        "rule": record.rule,
        "provenance": fact_texts(record.rule.provenance),
        "facts": _listing(record.source),
        "columns": _listing(record.columns.to_dict()),
        "versions": _listing({"im-datasets": record.package_version} | record.versions),
        "indicators": [_indicator(indicator) for indicator in record.indicators],
        "command": record.command and _command(record.command),
        "package_version": record.package_version,
    }


def _what(name: str, *, original: bool) -> str:
    return CONFIGS[name] + (", each with its reason" if name == "dropped" and not original else "")


def _here(configs: Mapping[str, Config], *, original: bool) -> str:
    """What the reader finds in the repository."""
    if "kept" not in configs:
        return "The texts are not here, only the scores of every row."
    if "dropped" in configs:
        return f"Both sides are here: the kept rows, best first, and {_what('dropped', original=original)}."
    more = "; the scores of all rows are here too" if "scores" in configs else ""
    return f"The kept rows are here, best first{more}."


def _terms(record: ScoringRecord | None, facts: CardFacts) -> list[str]:
    """Whose rows these are and under which terms, as far as anybody said."""
    link = f" ({facts.license_link})" if facts.license_link else ""
    named = facts.license_name or facts.license or "not given"
    told = [f"Licence of these rows, as their publisher states it: {named}{link}."]
    if record and record.source.get("kind") == "hub":
        at = f" at revision {record.source['revision']}" if record.source.get("revision") else ""
        told.append(f"The rows are from the dataset {_source(record)} on the Hub{at}; credit is due to its authors.")
    source = facts.source_terms or {}
    if source.get("license"):
        stated = [source[name] for name in ("license", "license_name", "license_link") if source.get(name)]
        told.append(f"Licence that the source's own card states: {', '.join(stated)}. Its terms hold for these rows.")
    return told


def _metadata(
    kept: int,
    record: ScoringRecord | None,
    facts: CardFacts,
    configs: list[dict[str, Any]],
    infos: Mapping[str, "DatasetInfo"],
) -> dict[str, Any]:
    """The front matter as data, every text one printable line."""
    from huggingface_hub import DatasetCardData

    is_hub = record is not None and record.source.get("kind") == "hub"
    data = DatasetCardData(
        language=list(map(one_line, facts.language)) or None,
        license=one_line(facts.license) if facts.license else None,
        license_name=one_line(facts.license_name) if facts.license_name else None,
        license_link=one_line(facts.license_link) if facts.license_link else None,
        pretty_name=one_line(facts.pretty_name) if facts.pretty_name else None,
        tags=[*TAGS, *(one_line(tag) for tag in facts.tags if tag not in TAGS)],
        task_categories=list(map(one_line, facts.task_categories)) or None,
        size_categories=[_size_category(kept)],
        source_datasets=[_source(record)] if is_hub else None,
        configs=configs,
    )
    if infos:
        from datasets.info import DatasetInfosDict

        DatasetInfosDict(infos).to_dataset_card_data(data)
    metadata: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return metadata


def as_yaml(metadata: Mapping[str, Any]) -> str:
    """Front matter as YAML without its fences, as ``huggingface_hub`` writes it, line breaks of Unicode escaped.

    PyYAML would write these as they stand, and read spaces.
    """
    import yaml
    from huggingface_hub.repocard_data import CardData

    class Dumper(yaml.Dumper):
        """PyYAML's, with quotes that escape."""

    def quoted(dumper: yaml.Dumper, text: str) -> yaml.ScalarNode:
        style = '"' if _UNICODE_BREAKS & set(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, quoted)
    plain = CardData(**metadata).to_dict()  # type: ignore[no-untyped-call]
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, line_break="\n").strip()


_UNICODE_BREAKS = {"\x85", "\u2028", "\u2029"}


def _configs(configs: Mapping[str, Config], digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """The configs as the front matter names them, each with a description that says which content it is.

    `datasets` keeps a local folder's rows under its name and what its card says, whatever its files hold: with cards
    alike, the rows of an earlier run, or of another folder of that name, would be given instead.
    """
    told: list[dict[str, Any]] = [
        {"config_name": name}
        | _description([digests[path] for path in config.files if path in digests])
        | {"data_files": [{"split": "train", "path": config.files if len(config.files) > 1 else config.files[0]}]}
        for name, config in configs.items()
    ]
    return [told[0] | {"default": True}, *told[1:]] if told else []


def _description(digests: list[str]) -> dict[str, str]:
    if not digests:
        return {}
    digest = digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()
    return {"description": f"content sha256 {digest}"}


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> _size_category(999), _size_category(1000), _size_category(10**12)
    ('n<1K', '1K<n<10K', 'n>1T')
    """
    return _SIZES[min(max(len(str(rows)) - 3, 0), len(_SIZES) - 1)]


def _source(record: ScoringRecord | None) -> str:
    return one_line((record.source.get("id") if record else None) or "a dataset without a name")


def _link(path: str) -> Trusted:
    from urllib.parse import quote

    return Trusted(quote(path, safe="/"))


def _command(words: Sequence[str]) -> str:
    """One line that a shell reads as these words; nothing in it can look like a line of the card."""
    import shlex

    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_c_escaped(word)}'" for word in words)


def _c_escaped(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped)


def _indicator(indicator: IndicatorRecord) -> dict[str, Any]:
    told = {"name": indicator.name, "version": indicator.version}
    counts = {"unscored": indicator.unscored, "truncated": indicator.truncated}
    texts = {"model": _short(format_fact(indicator.model or {})), "settings": _short(format_fact(indicator.settings))}
    return told | counts | texts


def _short(text: str) -> str:
    """A text with every digest cut to its beginning: the whole one stands in the record, and a phone is narrow.

    >>> _short("sha256:" + "0123456789abcdef" * 4)
    'sha256:0123456789ab…'
    """
    return _DIGEST.sub(r"\1…", text)


def _listing(facts: Mapping[str, Any]) -> Trusted:
    """Facts in one line of Markdown."""
    told = [f"{escape_markdown(name)} {escape_markdown(_short(value))}" for name, value in fact_texts(facts)]
    return Trusted(" · ".join(told) or "nothing")
