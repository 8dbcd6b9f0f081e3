"""The card of a publication against what was pushed, and every number on it against the rows and the record."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from im_datasets.common.errors import HubError
from im_datasets.common.version import __version__
from im_datasets.hub.card_merge import LICENCE, read_front_matter, split_card
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.parquet_configs import SPLIT
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.report.card import Card, render_card
from im_datasets.report.card_blocks import block_digests, find_blocks, replace_blocks
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.report.card_metadata import card_metadata

EDITABLE = ("language", "pretty_name", "task_categories")
"""Fields that a publisher may well correct later; that the licence is another one is a failure."""

_MARKER = re.compile(r"<!--\s*im-datasets:\s*(begin|end)\s+(\w+)")

PARTS = (
    "card.blocks",
    "card.facts.repo_id",
    *(
        f"card.metadata.{name}"
        for name in (
            *("tags", "size_categories", "source_datasets", "configs", "dataset_info", "language", "pretty_name"),
            *("task_categories", *LICENCE),
        )
    ),
)
"""What this speaks of."""


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
    wrong = [*_wrong_markers(body), *(f"the part {name} is missing" for name in blocks if name not in digests)]
    edited = [name for name, digest in digests.items() if blocks.get(name) != digest]
    wrong += [f"the part {name} is not as it was pushed" for name in edited]
    wrong += _wrong_metadata(fields, metadata)
    is_of_this_version = manifest.package_version == __version__
    if is_of_this_version:
        wrong += _wrong_claims(published, manifest)
    fresh = _render_again(published, manifest) if is_of_this_version else None
    tells_all = fresh is not None and len(published.scored) == 2
    if fresh is not None:
        expected = block_digests(fresh.blocks) if tells_all else blocks
        wrong += [
            f"the part {name}, as it was pushed, does not tell what the rows and the record tell"
            for name in dict.fromkeys((*expected, *blocks))
            if blocks.get(name) != expected.get(name)
        ]
    corrected = [name for name in EDITABLE if not _holds(fields.get(name), metadata.get(name))]
    since = f"; edited since: {', '.join(corrected)}" if corrected else ""
    spoken = PARTS if is_of_this_version else ()
    yield verdict("card", wrong, f"the generated parts and fields are as they were pushed{since}", spoken)
    if not tells_all:
        reason = "that takes the scores of both sides"
        if not is_of_this_version:
            reason = f"it was written by {manifest.package_version}"
        finding = f"whether every number on the card follows from the rows: {reason}"
        yield Check("card", Outcome.NOT_CHECKED, finding, PARTS)
    elif not wrong:
        yield Check("card", Outcome.PASSED, "every number on it follows from the rows and the record", PARTS)
    if written := _written_by_people(body, fields, metadata, fresh):
        yield Check("card", Outcome.NOT_CHECKED, f"what people wrote on the card: {', '.join(written)}")


def _wrong_markers(body: str) -> list[str]:
    """Markers that do not stand in pairs, each name once: a part may then be overruled by another of its name."""
    markers = [match.groups() for match in _MARKER.finditer(body)]
    names = [name for kind, name in markers if kind == "begin"]
    if markers == [(kind, name) for name in find_blocks(body) for kind in ("begin", "end")]:
        return []
    twice = [name for name, times in Counter(names).items() if times > 1]
    return [f"the markers of the generated parts are damaged{f': {few(twice)} begins twice' if twice else ''}"]


def _written_by_people(body: str, fields: dict[str, Any], claims: dict[str, Any], fresh: Card | None) -> list[str]:
    """What stands on the card beside what was generated, in a few words each."""
    written = []
    prose = _outside(body)
    if fresh is None or prose != _outside(fresh.body):
        written.append(f"{len(prose.split())} words outside its generated parts")
    added = [name for name in fields if name not in claims]
    added += [
        name for name in claims if isinstance(fields.get(name), list) and len(fields[name]) > _length(claims[name])
    ]
    return [*written, f"the field {few(sorted(map(str, added)))} of its front matter"] if added else written


def _outside(body: str) -> str:
    """The text of a card beside its generated parts."""
    return replace_blocks(body, dict.fromkeys(find_blocks(body), "")).strip()


def _length(value: Any) -> int:
    return len(_entries(value))


def _wrong_claims(published: PublishedSelection, manifest: Manifest) -> list[str]:
    """Generated fields that were pushed otherwise than rows, record and what the publisher stated give them."""
    from datasets import DatasetInfo, SplitDict, SplitInfo

    stated, infos = manifest.card["metadata"], {}
    facts = _facts(manifest)
    for entry in _entries(stated.get("dataset_info")):
        name = entry.get("config_name", next(iter(manifest.configs)))
        # How large the rows are in memory is the one thing that nobody can count again from the files.
        size = entry["dataset_size"]
        splits = SplitDict({SPLIT: SplitInfo(SPLIT, num_bytes=size, num_examples=len(published.tables[name]))})
        infos[name] = DatasetInfo(
            features=published.tables[name].features,
            splits=splits,
            download_size=sum(manifest.files[path].size for path in manifest.configs[name].files),
            dataset_size=size,
        )
    digests = {path: file.sha256 for path, file in manifest.files.items()}
    kept = len(published.sides["kept"])
    fresh = card_metadata(kept, published.record, facts, manifest.configs, digests, infos)
    wrong = [
        f"{name} of the front matter, as it was pushed, does not tell what the rows and the record tell"
        for name in dict.fromkeys((*fresh, *stated))
        if fresh.get(name) != stated.get(name)
    ]
    if facts.repo_id != manifest.repo_id:
        wrong.append(f"the card is of {facts.repo_id}, the manifest of {manifest.repo_id}")
    return wrong


def _facts(manifest: Manifest) -> CardFacts:
    """What its publisher stated."""
    stated = manifest.card["facts"]
    lists = {name: as_codes(stated[name]) for name in ("language", "tags", "task_categories")}
    return CardFacts(**{**stated, **lists})


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
    """The card as the published rows and record give it; None where there are no scores at all."""
    from jinja2 import TemplateError

    if "kept" not in published.scored:
        return None
    facts = _facts(manifest)
    is_original = manifest.columns == "original"
    try:
        return render_card(published.selection, published.record, facts, configs=manifest.configs, original=is_original)
    except TemplateError as error:
        raise HubError(f"the card cannot be made from what is claimed: {error}") from error
