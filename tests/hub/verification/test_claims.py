"""The table of claims holds every field of manifest and record, and no other."""

import json
from dataclasses import fields

import pytest
from forging import RULE

from im_datasets import indicators as catalogue
from im_datasets import mine, verify
from im_datasets.data.columns import Columns
from im_datasets.hub.manifest import Manifest
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.claims import CLAIMS, _leaves, claims_of, find_claim
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.settings import to_settings
from im_datasets.indicators.target.indicator import TargetSimilarity
from im_datasets.models.hub_models import model_facts
from im_datasets.report.card_facts import CardFacts
from im_datasets.report.configs import Config, Published
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.targets import describe_targets

OPENED = {
    (): Manifest,
    ("record",): ScoringRecord,
    ("record", "rule"): LinearRule,
    ("record", "indicators", "0"): IndicatorRecord,
    ("configs", "kept"): Config,
    ("files", "x.parquet"): Published,
    ("card", "facts"): CardFacts,
}
"""Where each dataclass stands in a manifest."""


def _places_of_classes():
    places = {(*place, field.name) for place, kind in OPENED.items() for field in fields(kind)}
    # Those that are opened again are no claims of their own.
    opened = {place[: end + 1] for place in OPENED for end in range(len(place))}
    opened |= {
        ("record", "indicators", "0", "model"),
        ("selection",),
        ("card",),
        ("record", "source"),
        ("record", "columns"),
        ("record", "selection"),
    }
    places |= {("selection", "per_group", name) for name in ("column", "quota", "unknown")}
    places |= {("selection", "embedder", name) for name in (*model_facts("m", "r", "float32", "cpu"), "unknown")}
    facts = model_facts("m", "r", "float32", "cpu")
    described = describe_targets(TargetSimilarity(targets=[("a", "b")])) | {"model": {**facts}, "unknown": 1}
    places |= {("selection", *place) for place, _ in _leaves({"targets": described})}
    settings = SelectionRequest(top_k=1).settings(embedder=None, evaluation_sha256=None, targets=None, shortfall=0)
    places |= {("selection", name) for name in (*settings, "kept", "dropped", "cut", "reasons")}
    places |= {("record", "columns", name) for name in Columns(messages="m").to_dict()}
    places |= {("record", "indicators", "0", "model", name) for name in model_facts("m", "r", "float32", "cpu")}
    return places - opened


def _kinds():
    kinds = [getattr(catalogue, name) for name in catalogue.__all__]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Indicator)]


def _places_of_settings():
    places = set()
    for kind in _kinds():
        required = {"targets": [("a", "b")]} if kind is TargetSimilarity else {}
        try:
            settings = to_settings(kind(**required))
            # What only says where something ran is in the record all the same.
            settings |= {field.name: "x" for field in fields(kind) if field.name in ("device", "compile")}
        except TypeError:
            continue
        places |= {("record", "indicators", "0", "settings", *place) for place, _ in _leaves(settings)}
    return places


@pytest.fixture
def real(published):
    """Places of the claims of real publications, of every form."""

    def places(**options):
        claims = claims_of(PublishedSelection.open(published(**options)))
        return {place for place, value in claims if value is not None}

    forms = [{"include_dropped": True}, {}, {"columns": "original", "include_scores": True}, {"scores_only": True}]
    return set().union(*(places(**options) for options in forms))


def test_every_field_has_a_claim_and_every_claim_a_field(real):
    source = {("record", "source", name) for name in ("limit", "seed", "config", "revision")}
    places = _places_of_classes() | _places_of_settings() | real | source
    assert [".".join(place) for place in places if find_claim(place) is None] == []
    present = {find_claim(place).place for place in places}
    metadata = {"license_name", "license_link", "pretty_name", "task_categories", "source_datasets"}
    of_some = {f"card.metadata.{name}" for name in metadata} | {
        "record.indicators.*.settings.embedder.device",
        "record.selection",
    }
    assert {claim.place for claim in CLAIMS} - present <= of_some


def test_a_claim_has_a_check_or_a_reason_why_there_is_none():
    assert all((claim.check is None) != (claim.why is None) for claim in CLAIMS)
    assert len({claim.place for claim in CLAIMS}) == len(CLAIMS)


def test_the_checks_of_the_table_are_those_that_are_made(published):
    names = {check.name for check in verify(published(include_dropped=True), sample=2).checks}
    assert {claim.check for claim in CLAIMS if claim.check} - names == {"duplicates", "evaluation"}


def test_every_claim_that_a_check_speaks_of_is_in_the_table(published):
    places = [claim.place for claim in CLAIMS]
    for check in verify(published(include_dropped=True), sample=2).checks:
        for spoken in check.claims:
            assert any(place == spoken or place.startswith(f"{spoken}.") for place in places), spoken


def test_the_longest_place_counts():
    assert find_claim(("record", "indicators", "3", "settings", "k")).check == "sample"
    assert find_claim(("record", "indicators", "3", "settings", "recall")).why
    assert find_claim(("selection", "by")) is None


def test_a_key_that_nobody_reads_fails(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Why?", "output": "Because."}\n' * 3)
    folder = mine(tmp_path / "rows.jsonl", tmp_path / "mined", rule=RULE, top_k=2, progress=False).folder
    record = json.loads((folder / "record.json").read_text())
    record["columns"]["audited"] = "by me"
    (folder / "record.json").write_text(json.dumps(record))
    failed = [check.told for check in verify(folder, sample=0).checks if check.outcome == "failed"]
    assert failed == ["record.json holds record.columns.audited, which im-datasets does not write so"]
