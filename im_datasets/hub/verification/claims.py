"""Every claim of a publication: the check that covers it, or why there is none; what remains is named."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from im_datasets.common.untrusted import LINE, parse_json, shown
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, Outcome, few, verdict
from im_datasets.report.configs import MANIFEST
from im_datasets.scoring.record import RECORD

_UNMADE = "the checks that would speak of it could not be made"
UNKNOWN = "nothing is known of it"
RUN = "only the machine of the run knows"
UNPUBLISHED = "target examples are not published"
STATED = "its publisher states it and nobody else knows"


@dataclass(frozen=True)
class Claim:
    """One thing that a publication says.

    Attributes:
        place: Where it stands in the manifest, keys with points between; ``*`` is any key. It covers all below it that
            has no place of its own.
        check: The check that speaks of it, by its name.
        why: Why there is none.
    """

    place: str
    check: str | None = None
    why: str | None = None


def _each(prefix: str, names: str, *, check: str | None = None, why: str | None = None) -> list[Claim]:
    return [Claim(f"{prefix}{name}", check, why) for name in names.split()]


CLAIMS: tuple[Claim, ...] = (
    *_each("", "package_version", why=RUN),
    *_each("", "schema_version", check="claims"),
    *_each("", "repo_id", check="repository"),
    *_each("", "columns", check="counts"),
    *_each("selection.", "top_k fraction threshold shortfall", check="settings"),
    *_each("selection.", "per_group per_group.column per_group.quota", check="reasons"),
    *_each("selection.", "near_duplicates", check="duplicates"),
    *_each("selection.", "embedder embedder.id embedder.revision embedder.dtype", check="duplicates"),
    *_each("selection.", "per_group.* embedder.*", why=UNKNOWN),
    *_each("selection.", "embedder.device", why=RUN),
    *_each("selection.", "exclude_contaminated evaluation_sha256", check="evaluation"),
    *_each("selection.", "targets targets.examples", check="cut"),
    *_each("selection.targets.", "sha256 hub kind model.id model.revision model.dtype", why=UNPUBLISHED),
    *_each("selection.targets.", "model.device", why=RUN),
    *_each("selection.", "targets.*", why=UNKNOWN),
    *_each("selection.", "seed", why=RUN),
    *_each("selection.", "kept dropped reasons", check="counts"),
    *_each("selection.", "cut", check="cut"),
    *_each("configs.*.", "rows columns", check="counts"),
    *_each("configs.*.", "files", check="files"),
    *_each("files.*.", "sha256 size git_sha1", check="files"),
    *_each("card.", "blocks facts.repo_id", check="card"),
    *_each("card.facts.", "license language pretty_name license_name license_link", why=STATED),
    *_each("card.facts.", "task_categories tags revision source_terms", why=STATED),
    *_each("card.metadata.", "tags size_categories source_datasets configs dataset_info", check="card"),
    *_each("card.metadata.dataset_info.", "dataset_size splits.*.num_bytes", why=RUN),
    *_each("card.metadata.dataset_info.*.", "dataset_size splits.*.num_bytes", why=RUN),
    *_each("card.metadata.", "language license license_name license_link pretty_name task_categories", check="card"),
    *_each("record.", "package_version created request command versions seconds", why=RUN),
    *_each("record.", "peak_memory_bytes throughput engines", why=RUN),
    *_each("record.", "schema_version", check="claims"),
    *_each("record.source.", "kind id config split revision fingerprint files rows limit seed", check="source"),
    *_each("record.columns.", "fields", check="sample"),
    *_each("record.columns.", "layout notes", check="claims"),
    *_each("record.rule.", "name title intercept terms target aggregation indicators", check="rule"),
    *_each("record.rule.", "provenance caveats schema_version", check="rule"),
    *_each("record.indicators.*.", "name writes", check="indicators"),
    *_each("record.indicators.*.", "version settings", check="sample"),
    *_each("record.indicators.*.settings.", "device compile embedder.device exact_limit recall memory_gib", why=RUN),
    *_each("record.indicators.*.settings.", "targets", why=UNPUBLISHED),
    *_each("record.indicators.*.model.", "id revision dtype", check="sample"),
    *_each("record.indicators.*.model.", "device", why=RUN),
    *_each("record.indicators.*.", "unscored", check="statistics"),
    *_each("record.indicators.*.", "truncated reused tokens seconds share search", why=RUN),
    *_each("record.indicators.*.search.", "vectors", check="sample"),
    *_each("record.", "rows selection unscorable", check="counts"),
    *_each("record.", "statistics", check="statistics"),
)
"""All that a manifest and its record may hold; ``check_claims`` reads it, and a test holds it to their fields."""

Place = tuple[str, ...]
Tree = dict[str, Any]


def _as_tree() -> Tree:
    """The table by the keys of its places, a claim under the empty key: a stranger's manifest may hold many keys."""
    tree: Tree = {}
    for claim in CLAIMS:
        branch = tree
        for key in claim.place.split("."):
            branch = branch.setdefault(key, {})
        branch[""] = claim
    return tree


_TREE = _as_tree()


def check_claims(published: PublishedSelection, checks: Iterable[Check]) -> Iterator[Check]:
    """What a publication claims and no check spoke of, by its reason; and what it holds that nobody knows.

    Args:
        published: Of which all is claimed.
        checks: All that were made of it.
    """
    claimed = claims_of(published)
    yield verdict("claims", _unread(published, claimed), f"{len(claimed)} values, as im-datasets writes them", _READ)
    spoken = {place for check in checks for place in check.claims} | set(_READ)
    silent_places = {c.place for c in CLAIMS if not any(_is_within(c.place, place) for place in spoken)}
    silent: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for place, value in claimed:
        claim = find_claim(place)
        if _is_nothing(value):
            continue
        if claim is None:
            silent[UNKNOWN][shown(".".join(place), LINE // 2)] = None
        elif claim.why:
            silent[claim.why][_name(claim.place)] = None
        elif claim.place in silent_places:
            silent[_UNMADE][_name(claim.place)] = None
    for why, names in silent.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield Check("claims", Outcome.NOT_CHECKED, f"{', '.join(list(names)[:_SHOWN])}{more}: {why}")


_READ = ("schema_version", "record.schema_version", "record.columns.layout", "record.columns.notes")
"""What reading alone settles."""

_SHOWN = 30
"""Claims named in one line; a stranger's manifest may hold any number of keys."""


def claims_of(published: PublishedSelection) -> list[tuple[Place, Any]]:
    """Every claim with its place, of a manifest or of a folder of ``mine``."""
    manifest, record = published.manifest, published.record
    if manifest is not None:
        data = json.loads(manifest.to_json())
    else:
        data = {"record": record and json.loads(record.to_json()), "selection": published.claims}
    # Its own check holds it to the manifest's.
    if data.get("record"):
        data["record"].pop("selection", None)
    return list(_leaves(data))


def find_claim(place: Place) -> Claim | None:
    """The entry of the table for a place: the longest that fits, with as few ``*`` as can be."""
    branches, claim = [_TREE], None
    for key in place:
        branches = [branch[name] for branch in branches for name in (key, "*") if name and name in branch]
        claim = next((branch[""] for branch in branches if "" in branch), claim)
    return claim


def _is_within(place: str, other: str) -> bool:
    return place == other or place.startswith(f"{other}.")


def _name(place: str) -> str:
    """A place as a person reads it."""
    return place.replace(".*", "").removeprefix("record.")


def _is_nothing(value: Any) -> bool:
    """Whether a value claims nothing: there is none."""
    return value is None or value in ({}, [], "")


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value inside with its place; lists of plain values are one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            yield from _leaves(entry, (*place, str(number)))
    else:
        yield place, value


def _unread(published: PublishedSelection, claimed: list[tuple[Place, Any]]) -> list[str]:
    """What stands in the file otherwise than it was read: keys that nobody reads, notes that do not follow."""
    name = RECORD if published.manifest is None else MANIFEST
    raw = parse_json(published.content(name) or b"", name)
    if published.manifest is None:
        raw = {"record": {**raw, "selection": None}, "selection": raw.get("selection")}
    elif raw.get("record"):
        raw["record"].pop("selection", None)
    if raw.get("record"):
        raw["record"].pop("selection", None)
    written, read = dict(_leaves(raw)), dict(claimed)
    # Of equal kind too: True is 1 to Python, and no number to others.
    wrong = [".".join(p) for p in written.keys() | read.keys() if repr(written.get(p)) != repr(read.get(p))]
    return [f"{name} holds {few(sorted(wrong))}, which im-datasets does not write so"] if wrong else []
