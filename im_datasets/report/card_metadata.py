"""The front matter of a card: what the Hub lists and searches, and which files `datasets` loads."""

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from im_datasets.common.untrusted import shown
from im_datasets.report.card_facts import CardFacts
from im_datasets.report.configs import Config
from im_datasets.report.formatting import source_name
from im_datasets.scoring.record import ScoringRecord

if TYPE_CHECKING:
    from datasets import DatasetInfo

TAGS = ("im-datasets", "instruction-mining")
_UNICODE_BREAKS = {"\x85", "\u2028", "\u2029"}
_SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
"""The Hub's size categories; each next one has a digit more."""


def card_metadata(
    kept: int,
    record: ScoringRecord | None,
    facts: CardFacts,
    configs: Mapping[str, Config],
    digests: Mapping[str, str],
    infos: Mapping[str, "DatasetInfo"],
) -> dict[str, Any]:
    """The front matter as data, every text one printable line.

    Args:
        kept: Number of kept rows, by which the Hub sorts datasets into sizes.
        record: Where the scores came from; None where that is not known.
        facts: What the publisher says of the rows.
        configs: Config name → its files; the first is the default.
        digests: File → sha256, of the files whose content the front matter shall state.
        infos: Config name → features and sizes as `datasets` tells them.
    """
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        language=list(map(shown, facts.language)) or None,
        license=shown(facts.license) if facts.license else None,
        license_name=shown(facts.license_name) if facts.license_name else None,
        license_link=shown(facts.license_link) if facts.license_link else None,
        pretty_name=shown(facts.pretty_name) if facts.pretty_name else None,
        tags=[*TAGS, *(shown(tag) for tag in facts.tags if tag not in TAGS)],
        task_categories=list(map(shown, facts.task_categories)) or None,
        size_categories=[_size_category(kept)],
        source_datasets=[source_name(record.source)] if record and record.source.get("kind") == "hub" else None,
        configs=_configs(configs, digests),
    )
    # `datasets` writes its own entries, so that they read as if it had pushed the rows.
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


def _configs(configs: Mapping[str, Config], digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """The configs as the front matter names them, each with a description that says which content it is.

    `datasets` keeps a local folder's rows under its name and what its card says, whatever its files hold: with cards
    alike, the rows of an earlier run, or of another folder of that name, would be given instead.
    """
    entries: list[dict[str, Any]] = []
    for name, config in configs.items():
        entry: dict[str, Any] = {"config_name": name}
        contents = [digests[path] for path in config.files if path in digests]
        if contents:
            digest = contents[0] if len(contents) == 1 else sha256("".join(contents).encode()).hexdigest()
            entry["description"] = f"content sha256 {digest}"
        path = config.files if len(config.files) > 1 else config.files[0]
        entries.append(entry | {"data_files": [{"split": "train", "path": path}]})
    return [entries[0] | {"default": True}, *entries[1:]] if entries else []


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> _size_category(999), _size_category(1000), _size_category(10**12)
    ('n<1K', '1K<n<10K', 'n>1T')
    """
    return _SIZES[min(max(len(str(rows)) - 3, 0), len(_SIZES) - 1)]
