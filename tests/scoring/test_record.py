"""The ScoringRecord: the truth behind every summary, report and card."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import make_record

from im_datasets.scoring.record import cut_word, without_paths


@pytest.mark.parametrize(
    ("word", "cut"),
    [
        ("/home/me/rows.jsonl", "rows.jsonl"),
        ("/home/me/x y/my rows.jsonl", "my rows.jsonl"),
        ("file:///home/me/rows.jsonl", "rows.jsonl"),
        ("~/models/tiny", "tiny"),
        ("--rule=/home/me/rule.json", "--rule=rule.json"),
        ("C:\\Users\\me\\rows.csv", "rows.csv"),
        ("\\\\server\\share\\rows.csv", "rows.csv"),
        ("--columns=instruction=/data/question", "--columns=instruction=/data/question"),
        ("instruction=/a/b,response=/c/d", "instruction=/a/b,response=/c/d"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("owner/name", "owner/name"),
        ("and/or", "and/or"),
        ("../data/rows.jsonl", "../data/rows.jsonl"),
    ],
)
def test_cut_word(word, cut):
    assert cut_word(word) == cut


@given(st.text(alphabet="abc/=, ~-", max_size=30))
def test_cut_word_twice_is_once(word):
    assert cut_word(cut_word(word)) == cut_word(word)


def test_without_paths_cuts_where_a_path_may_stand():
    indicator = replace(
        make_record().indicators[0], settings={"embedder": {"model": "/home/me/mini"}}, model={"id": "/home/me/mini"}
    )
    source = {"kind": "file", "id": "/home/me/rows.jsonl", "files": ["/home/me/rows.jsonl"]}
    stated = {
        "Similarity": {"embedder": {"model": "/home/me/mini", "weights": "sha256:0a"}},
        "Length": {"tokenizer": "x"},
    }
    rule = replace(make_record().rule, provenance={"base_model": {"id": "/home/me/base"}}, indicators=stated)
    record = without_paths(make_record(source=source, indicators=[indicator], rule=rule, command=["x", "/home/me/a"]))
    assert "/home/me" not in json.dumps(record.to_dict())
    assert (record.source["files"], record.command) == (["rows.jsonl"], ["x", "a"])
    stated["Similarity"]["embedder"]["model"] = "mini"
    assert record.rule.indicators == stated


def test_without_paths_leaves_a_clean_record_as_it_is():
    assert without_paths(make_record()) == make_record()
