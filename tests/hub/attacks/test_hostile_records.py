"""What a stranger's result says of itself, with anything in any place: one line of error, or shown as it stands."""

import json
import os
import random
import shutil
import struct
from contextlib import contextmanager
from dataclasses import asdict
from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import ASKED, FACTS, MANIFEST
from forging import REPO as FORGED

from im_datasets import load_selection, push_selected, select, verify
from im_datasets.cli.printing import print_summary, summarise
from im_datasets.common.errors import ImDatasetsError
from im_datasets.pipeline import Mined, mine
from im_datasets.report.card import render_card
from im_datasets.report.configs import Published
from im_datasets.report.page import write_report
from im_datasets.report.result_folder import load_result
from im_datasets.rules.linear import LinearRule

GONE = "left out"
VALUES = (
    *(None, True, -1, 0, 1.5, 10**60, 10**400, float("nan"), "x", "", [], [1], ["x"], [None], [{}]),
    *({}, {"x": 1}, {"x": None}, {"x": {}}, {"x": "x"}, GONE),
)
"""What is put in the place of each value."""

TRIED = int(os.environ.get("IM_RECORDS", "12"))
"""How many changes are drawn at random of each kind, beside those that were seen to break something; 0 is all."""

BROKE = [
    (("selection", "cut"), "x"),
    (("selection", "reasons"), {"x": None}),
    (("source", "rows"), "x"),
    (("source", "files"), 10**400),
    (("versions",), [1]),
    (("command",), [None]),
    (("indicators", 0, "writes"), [1]),
    (("indicators", 0, "unscored"), 1.5),
    (("rule", "provenance"), {"x": float("nan")}),
]
COLUMNS_BROKE = [
    ("kept", "im_row", "texts"),
    ("kept", "im_row", GONE),
    ("kept", "im_log_loss", "nulls"),
    ("kept", "im_log_loss", "beyond"),
    ("dropped", "im_reason", "nulls"),
    ("dropped", "output", "no UTF-8"),
]


def places(value, path=()):
    """The path of every value in plain data."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, name))


def changed(data, path, value):
    data = json.loads(json.dumps(data))
    *outer, last = path
    place = data
    for name in outer:
        place = place[name]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.fixture
def result(hub, quick_figures, no_loading, forge_source, monkeypatch, tmp_path):
    """A folder of ``mine`` with all that a record can tell, and what is published of it."""
    monkeypatch.setattr("im_datasets.report.page._svg", lambda *drawn: "")
    monkeypatch.setattr("im_datasets.report.page.figures", MagicMock())
    rule = LinearRule.load("embedded")
    mine(forge_source, tmp_path / "result", rule=rule, top_k=8, **ASKED, **FACTS, progress=False)
    selection = load_result(tmp_path / "result")
    push_selected(selection, FORGED, include_dropped=True, **FACTS)
    for path, file in hub.store.repos["dataset", FORGED].commit_at("main").files.items():
        place = tmp_path / "published" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
    return tmp_path


def lay_record(folder, record):
    """Put a record into the result and into the publication."""
    (folder / "result/record.json").write_text(json.dumps(record))
    manifest = json.loads((folder / "published" / MANIFEST).read_text())
    manifest |= {"record": record, "selection": record.get("selection")}
    (folder / "published" / MANIFEST).write_text(json.dumps(manifest))


@contextmanager
def one_line():
    """Let pass an error of ours that is one line of bounded length, and no other."""
    told = ""
    try:
        yield
    except ImDatasetsError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 2500


def use(folder):
    """Do everything that may be done with a stranger's result or publication."""
    options = {"include_dropped": True, "include_scores": True, "report": True, "dry_run": True}
    for load, place in ((load_result, "result"), (load_selection, "published")):
        with one_line():
            selection = load(folder / place)
            with one_line():
                str(render_card(selection, selection.record))
            with one_line():
                select(selection.kept, top_k=1)
            with one_line():
                push_selected(selection, FORGED, **FACTS, **options)
            if place == "result":
                print_summary(summarise(Mined(folder, selection.record, selection, repeated=False)))
                write_report(selection, selection.record, folder / "report.html")
    with one_line():
        verify(folder / "result", sample=0)
    with one_line():
        verify(folder / "published", sample=1, seed=1)


def drawn(cases, broke):
    return [*broke, *random.Random(os.environ.get("IM_SEED")).sample(cases, TRIED)] if TRIED else cases


def test_a_record_with_anything_in_any_field_ends_in_one_line(result):
    record = json.loads((result / "result/record.json").read_text())
    cases = [(path, value) for path in places(record) for value in VALUES]
    for path, value in drawn(cases, BROKE):
        lay_record(result, changed(record, path, value))
        print("this record:", path, value)
        use(result)


OFFSETS = struct.pack("<ii", 0, 2)
STRUCT = [{"bytes": b"x", "path": "/etc/hostname"}]
COLUMNS = {
    "texts": pa.array(["x"]),
    "long texts": pa.array(["x"], pa.large_string()),
    "fractions": pa.array([0.5]),
    "no numbers": pa.array([float("nan")]),
    "no end": pa.array([float("inf")]),
    "large": pa.array([1e300]),
    "truths": pa.array([True]),
    "nulls": pa.nulls(1),
    "null numbers": pa.array([None], pa.int64()),
    "null texts": pa.array([None], pa.string()),
    "below": pa.array([-7]),
    "beyond": pa.array([2**63 + 5], pa.uint64()),
    "lists": pa.array([["x"]]),
    "structs": pa.array(STRUCT),
    "bytes": pa.array([b"\xff"]),
    "times": pa.array([0], pa.timestamp("us")),
    "spans": pa.array([0], pa.duration("us")),
    "decimals": pa.array([0], pa.int64()).cast(pa.decimal128(38)),
    "halves": pa.array(np.float16([0.5])),
    "dictionaries": pa.array(["x"]).dictionary_encode(),
    "no UTF-8": pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(OFFSETS), pa.py_buffer(b"\xff\xfe")]),
}


def put_column(folder, path, name, column):
    """Put a column in the place of one of a file, or leave it out."""
    for place in (folder / "result" / f"{path}.parquet", folder / "published" / path / "train-00000-of-00001.parquet"):
        table = pq.read_table(place)
        table = table.drop_columns([name]) if name in table.column_names else table
        if column is not None:
            table = table.append_column(name, pa.chunked_array([column] * len(table)).combine_chunks())
        pq.write_table(table.replace_schema_metadata(None), place)
    manifest = json.loads((folder / "published" / MANIFEST).read_text())
    for config in manifest["configs"].values():
        config["columns"] = pq.read_schema(folder / "published" / config["files"][0]).names
    for name in manifest["files"]:
        manifest["files"][name] = asdict(Published.of_file(folder / "published" / name))
    (folder / "published" / MANIFEST).write_text(json.dumps(manifest))


def test_rows_with_any_column_of_any_type_end_in_one_line(result):
    names = sorted(set(pq.read_schema(result / "result/dropped.parquet").names))
    cases = [(side, name, kind) for side in ("kept", "dropped") for name in names for kind in (*COLUMNS, GONE)]
    shutil.copytree(result, result / "whole")
    for side, name, kind in drawn(cases, COLUMNS_BROKE):
        for part in ("result", "published"):
            shutil.rmtree(result / part)
            shutil.copytree(result / "whole" / part, result / part)
        put_column(result, side, name, COLUMNS.get(kind))
        print("these rows:", side, name, kind)
        use(result)
