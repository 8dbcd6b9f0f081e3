"""The manifest: written and read back the same, refused when it is none, and free of this machine's paths."""

import json
from dataclasses import replace

import pytest
from report_sample import make_record

from im_datasets.common.errors import HubError, OutputError
from im_datasets.data.columns import Columns
from im_datasets.hub.manifest import Manifest
from im_datasets.report.configs import Config, Published
from im_datasets.scoring.record import ScoringRecord, read_record, without_paths


def make_manifest(**changes):
    configs = {"kept": Config(1, ["a"], ["kept/x.parquet"])}
    fields = {"package_version": "0", "repo_id": "me/x", "selection": {"cut": 0.5}, "record": make_record()}
    fields |= {"columns": "all", "configs": configs, "files": {"kept/x.parquet": Published.of(b"x")}, "card": {}}
    return Manifest(**(fields | changes))


@pytest.mark.parametrize("record", [None, make_record()])
def test_manifest_is_read_back_as_it_was_written(record):
    manifest = make_manifest(record=record)
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "configs": 3}', "null"]
)
def test_manifest_refuses_other_texts(text):
    with pytest.raises(HubError, match="is not one of im-datasets"):
        Manifest.from_json(text)


@pytest.mark.parametrize("name", ["selection", "configs", "files", "card"])
def test_manifest_refuses_a_part_that_is_no_mapping(name):
    data = json.loads(make_manifest().to_json()) | {name: [1]}
    with pytest.raises(HubError, match="must be mappings"):
        Manifest.from_json(json.dumps(data))


def test_manifest_of_a_later_schema_is_refused_as_such():
    data = json.loads(make_manifest().to_json()) | {"schema_version": 2}
    with pytest.raises(HubError, match="has schema version 2; known: 1; update im-datasets"):
        Manifest.from_json(json.dumps(data))


def test_without_paths_leaves_settings_and_columns_that_only_look_like_paths():
    columns = Columns(instruction="/data/instruction", response="/data/response", system="/no/think")
    settings = {"template": "{instruction}\n/no/think\n", "model": "owner/name"}
    record = make_record(columns=columns, indicators=[replace(make_record().indicators[0], settings=settings)])
    assert without_paths(record) == record


def _record_data(**changes):
    return json.loads(json.dumps(make_record().to_dict())) | changes


def test_a_record_gives_its_layout_and_notes_beside_its_columns():
    columns = Columns(instruction="q", response="a", system="s")
    data = make_record(columns=columns).to_dict()["columns"]
    assert data == {
        "layout": "instruction and response",
        "fields": {"instruction": "q", "response": "a", "system": "s"},
        "notes": ["'s' is the system turn of the instruction"],
    }


def test_a_record_of_other_words_for_the_same_columns_is_read():
    columns = {"layout": "pairs", "fields": {"instruction": "instruction", "response": "output"}, "notes": ["once"]}
    assert read_record(_record_data(columns=columns)) == make_record()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"columns": {"fields": {"instruction": "a", "answer": "b"}}}, "unexpected keyword argument 'answer'"),
        ({"columns": {"fields": {"instruction": "a"}}}, "does not say where the response stands"),
        ({"columns": {"fields": {"response": 1}}}, "columns of the record is .*; it must be an object with fields"),
        ({"columns": None}, "columns of the record is None; it must be an object with fields"),
        ({"rule": {}}, "not a rule: 'schema_version'"),
        ({"rule": make_record().rule.to_dict() | {"terms": []}}, "needs at least one term"),
        ({"indicators": [{"title": "x"}]}, "unexpected keyword argument 'title'"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
    ],
)
def test_a_record_that_is_broken_is_one_clear_error(changes, match, tmp_path):
    data = _record_data(**changes)
    with pytest.raises(OutputError, match=f"not a scoring record: .*{match}"):
        read_record(data)
    (tmp_path / "record.json").write_text(json.dumps(data))
    with pytest.raises(OutputError, match=f"record.json is not a scoring record: .*{match}"):
        ScoringRecord.load(tmp_path / "record.json")
    text = json.dumps(json.loads(make_manifest().to_json()) | {"record": data})
    with pytest.raises(HubError, match=f"instructmining.json is not one of im-datasets: .*{match}"):
        Manifest.from_json(text)
