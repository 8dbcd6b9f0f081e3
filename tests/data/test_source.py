"""Data of every kind loads with its values untouched; what cannot be read is one clear line."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Json, Value
from hub_server import serve

from im_datasets.common.errors import ColumnsError, SourceError
from im_datasets.data.columns import Columns
from im_datasets.data.conversations import HALF_PAIR, Reason
from im_datasets.data.files import find_files, fingerprint
from im_datasets.data.prepare import prepare
from im_datasets.data.source import load_source

ROWS = [{"instruction": f"Q{n}", "output": f"A{n}"} for n in range(6)]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.ndjson", "r.csv", "r.tsv", "r.parquet", "r.jsonl.gz"])
def test_load_source_reads_each_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    dataset = Dataset.from_list(ROWS)
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(lines(ROWS).encode()))
    elif name.endswith("parquet"):
        dataset.to_parquet(path)
    elif name.endswith("sv"):
        dataset.to_csv(path, sep="\t" if name.endswith("tsv") else ",")
    else:
        path.write_text(json.dumps(ROWS) if name == "r.json" else lines(ROWS), encoding="utf-8")
    source = load_source(path)
    assert source.dataset.to_list() == ROWS
    assert source.info["kind"] == "file"
    assert (source.info["id"], source.info["files"], source.info["rows"]) == (name, [name], 6)


def test_load_source_keeps_every_value_of_a_csv_as_text(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('instruction,output\nagent,007\nanswer,None\nnothing,\n"a, b","two\nlines"\n', encoding="utf-8")
    assert load_source(path).dataset["output"][:] == ["007", "None", "", "two\nlines"]


def test_load_source_keeps_values_of_mixed_types(tmp_path: Path) -> None:
    values = ["text", 5, None, ["a", 1], {"b": 2}, 1.5, True]
    path = tmp_path / "r.jsonl"
    path.write_text(lines([{"output": value} for value in values]), encoding="utf-8")
    dataset = load_source(path).dataset
    assert dataset["output"][:] == values
    assert dataset.features["output"] == Json()


def test_load_source_takes_a_type_that_changes_late_and_an_extra_key(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    filler = "x" * 2000
    rows: list[dict[str, Any]] = [{"n": n, "output": filler} for n in range(6000)]
    rows.append({"n": "last", "output": filler, "extra": ["late", 1], "score": 1})
    path.write_text(lines(rows), encoding="utf-8")
    dataset = load_source(path).dataset
    assert dataset["n"][0] == 0
    assert dataset[6000] == rows[-1]
    assert dataset.features["output"] == Value("string")
    assert dataset["extra"][5999] is None


def test_load_source_leaves_texts_that_look_like_dates(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(lines([{"output": "2020-01-01"}, {"output": "2021-12-31"}]), encoding="utf-8")
    assert load_source(path).dataset["output"][:] == ["2020-01-01", "2021-12-31"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r.jsonl", b"", "rows?.*is empty|is empty"),
        ("r.json", b"[]", "no rows in r.json"),
        ("r.json", b" \n", "no rows in r.json"),
        ("r.csv", b"a,b\n", "no rows in r.csv"),
        ("r.jsonl", b'{"a": 1}\n\n{"a": \n{"a": 2}\n', "line 3 of r.jsonl is not JSON: Expecting value; mend"),
        ("r.json", b'[{"a": 1},\n{"a": 2}\n', "line 3 of r.json is not JSON"),
        ("r.jsonl", b'"a"\n"b"\n', "row 1 of r.jsonl is of type str; each row must be an object"),
        ("r.jsonl", '{"a": "é"}\n'.encode("latin-1"), "line 1 of r.jsonl is not UTF-8"),
        ("r.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot read r.csv: .*Expected 2 fields in line 3, saw 4"),
        ("r.parquet", b"no", "cannot read r.parquet"),
        ("r.jsonl.gz", b"no gzip", "cannot read r.jsonl.gz"),
        ("r.txt", b"text", r"cannot tell the format of r.txt; accepted: \.json, \.jsonl"),
    ],
)
def test_load_source_says_what_is_wrong_with_a_file(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=match) as caught:
        load_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", ["missing.jsonl", "./missing", "/missing/rows.parquet", "what is this?"])
def test_load_source_names_a_missing_file(data: str) -> None:
    with pytest.raises(SourceError, match=f"no file or folder {re.escape(data)}"):
        load_source(data)


def test_load_source_says_that_the_hub_cannot_be_reached() -> None:
    with pytest.raises(SourceError, match="no file or folder owner/name, and the Hub cannot be reached"):
        load_source("owner/name")


def test_load_source_reads_folders_and_globs(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"part{number}.jsonl").write_text(lines(ROWS[number : number + 1]), encoding="utf-8")
    (tmp_path / "README.md").write_text("no data", encoding="utf-8")
    (tmp_path / ".hidden.jsonl").write_text("no data", encoding="utf-8")
    for data in (tmp_path, tmp_path / "*.jsonl"):
        source = load_source(data)
        assert source.dataset.to_list() == ROWS[1:3]
        assert source.info["files"] == ["part1.jsonl", "part2.jsonl"]
        assert source.info["kind"] == "folder"


def test_load_source_asks_which_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000.jsonl").write_text(lines(ROWS), encoding="utf-8")
    (tmp_path / "data" / "test-00000.jsonl").write_text(lines(ROWS[:1]), encoding="utf-8")
    with pytest.raises(SourceError, match=r"has the splits test, train; pass one as --split \(split=\)"):
        load_source(tmp_path)
    with pytest.raises(SourceError, match="has no split 'dev'; it has: test, train"):
        load_source(tmp_path, split="dev")
    assert load_source(tmp_path, split="test").info["files"] == ["data/test-00000.jsonl"]


def test_load_source_refuses_mixed_formats_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data files in the folder"):
        load_source(tmp_path)
    (tmp_path / "a.jsonl").write_text(lines(ROWS), encoding="utf-8")
    (tmp_path / "b.csv").write_text("instruction,output\nQ,A\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"different formats \(csv, json\) side by side: a.jsonl, b.csv; pass a glob"):
        load_source(tmp_path)


def test_load_source_reads_saved_datasets(tmp_path: Path) -> None:
    dataset = Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(train=dataset, test=dataset.select(range(2))).save_to_disk(tmp_path / "two")
    source = load_source(tmp_path / "one")
    assert source.dataset.to_list() == ROWS
    assert (source.info["kind"], source.info["id"]) == ("saved", "one")
    assert len(load_source(tmp_path / "two", split="test").dataset) == 2
    with pytest.raises(SourceError, match="two has the splits train, test"):
        load_source(tmp_path / "two")
    with pytest.raises(SourceError, match="one is one saved dataset without a split 'test'"):
        load_source(tmp_path / "one", split="test")
    (tmp_path / "one" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(SourceError, match="cannot read the saved dataset one"):
        load_source(tmp_path / "one")


def test_load_source_limits_rows(jsonl: Path) -> None:
    assert load_source(jsonl, limit=2).dataset.to_list() == ROWS[:2]
    assert load_source(jsonl, limit=20).info["rows"] == 6
    sample = load_source(jsonl, limit=3, seed=1)
    assert sample.dataset.to_list() == load_source(jsonl, limit=3, seed=1).dataset.to_list()
    assert [row for row in ROWS if row in sample.dataset.to_list()] == sample.dataset.to_list()
    assert (sample.info["limit"], sample.info["seed"]) == (3, 1)
    with pytest.raises(SourceError, match="limit is 0; it must be at least 1"):
        load_source(jsonl, limit=0)


def test_load_source_streams(jsonl: Path) -> None:
    assert load_source(jsonl, streaming=True, limit=2).dataset.to_list() == ROWS[:2]
    assert load_source(jsonl, streaming=True).dataset.to_list() == ROWS
    drawn = load_source(jsonl, streaming=True, limit=3, seed=1).dataset.to_list()
    assert len(drawn) == 3
    assert all(row in ROWS for row in drawn)


def test_load_source_reads_again_where_a_stream_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows = [{"n": n, "output": "x" * 2000} for n in range(6000)] + [{"n": "last", "late": 1}]
    path.write_text(lines(rows), encoding="utf-8")
    assert load_source(path, streaming=True).dataset["n"][-1] == "last"
    assert load_source(path, streaming=True, limit=5).dataset["n"][:] == [0, 1, 2, 3, 4]


def test_load_source_names_the_broken_line_of_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(lines(ROWS) + "{", encoding="utf-8")
    with pytest.raises(SourceError, match=r"line 7 of r\.jsonl is not JSON"):
        load_source(path, streaming=True)


def test_load_source_refuses_hub_settings_for_local_data(jsonl: Path) -> None:
    with pytest.raises(SourceError, match="config and revision belong to Hub datasets"):
        load_source(jsonl, config="main")


def test_info_names_no_place_of_this_machine(jsonl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(jsonl.parent) not in json.dumps(load_source(jsonl).info)
    monkeypatch.chdir(jsonl.parent.parent)
    relative = f"{jsonl.parent.name}/{jsonl.name}"
    assert load_source(relative).info["id"] == relative


def test_fingerprint_follows_the_content(jsonl: Path) -> None:
    before = load_source(jsonl).info["fingerprint"]
    assert before == load_source(jsonl).info["fingerprint"] == fingerprint([jsonl])
    jsonl.write_text(lines(ROWS[:5]), encoding="utf-8")
    source = load_source(jsonl)
    assert source.info["fingerprint"] != before
    assert source.info["rows"] == 5


def test_load_source_finds_the_cache_on_a_second_call(jsonl: Path) -> None:
    first, second = (load_source(jsonl).dataset for _ in range(2))
    assert first.cache_files == second.cache_files
    assert first._fingerprint == second._fingerprint


def test_find_files_takes_a_literal_name_with_glob_characters(tmp_path: Path) -> None:
    path = tmp_path / "rows[1].jsonl"
    path.write_text(lines(ROWS), encoding="utf-8")
    assert find_files(str(path)) == {"train": [path]}


ALPACA = {"instruction": "instruction", "response": "output", "input": "input"}
TASKS = {"instruction": "instruction", "instances": "instances"}
PLACEHOLDER, TEMPLATE, EMPTY = "image, audio or video placeholder", "unfilled template", "empty response"
EN = "instruction=en_instruction,input=en_input,response=en_output"
ZH = "instruction=zh_instruction,input=zh_input,response=zh_output"
CODE = "instruction=instruction,input=input,response=output"
CHOSEN = "conversation with chosen answer"
TOPICAL = "instruction=source,response=system_output"

CHAT, SHARE = {"messages": "messages"}, {"messages": "conversations"}
PLAIN = "instruction and response"
SHARED: list[tuple[str, str | None, str, dict[str, str], int, dict[str, int]]] = [
    ("alpaca52k/alpaca_data.json", None, PLAIN, ALPACA, 52002, {EMPTY: 80, PLACEHOLDER: 110}),
    ("alpaca_cleaned/alpaca_data_cleaned_first_1000.json", None, PLAIN, ALPACA, 1000, {}),
    ("alpaca_zh_openchinese/alpaca_chinese_part_0.json", EN, PLAIN, {}, 1000, {EMPTY: 2, PLACEHOLDER: 1}),
    ("alpaca_zh_openchinese/alpaca_chinese_part_0.json", ZH, PLAIN, {}, 1000, {EMPTY: 1}),
    ("chat_samples/dummy_conversation.json", None, "conversation", SHARE, 500, {}),
    ("code_alpaca/code_alpaca_2k.json", None, PLAIN, ALPACA, 2017, {EMPTY: 2}),
    ("code_alpaca/new_codealpaca.json", CODE, PLAIN, {}, 4535, {}),
    ("code_alpaca/new_codealpaca.json", CODE.replace("=output", "=response"), PLAIN, {}, 4535, {}),
    ("dolly/dolly_3k.json", None, PLAIN, ALPACA, 2996, {}),
    ("eval_sets/seed_tasks.jsonl", None, "self-instruct", TASKS, 175, {}),
    ("eval_sets/user_oriented_instructions.jsonl", None, "self-instruct", TASKS, 252, {}),
    ("gpteacher/toolformer-dedupe-only-dataset.json", None, PLAIN, ALPACA, 7673, {}),
    ("gsm8k_alpaca/gsm_8k_train.json", None, PLAIN, ALPACA, 7473, {}),
    ("llamafactory_demo/alpaca_en_demo.json", None, PLAIN, ALPACA, 999, {}),
    ("llamafactory_demo/alpaca_zh_demo.json", None, PLAIN, ALPACA, 1000, {}),
    ("llamafactory_demo/dpo_en_demo.json", None, CHOSEN, {**SHARE, "response": "chosen"}, 300, {}),
    ("llamafactory_demo/dpo_zh_demo.json", None, CHOSEN, {**SHARE, "response": "chosen"}, 300, {}),
    ("llamafactory_demo/glaive_toolcall_en_demo.json", None, "conversation", SHARE, 300, {}),
    ("llamafactory_demo/glaive_toolcall_zh_demo.json", None, "conversation", SHARE, 300, {}),
    ("llamafactory_demo/identity.json", None, PLAIN, ALPACA, 91, {TEMPLATE: 85}),
    ("llamafactory_demo/mllm_audio_demo.json", None, "conversation", CHAT, 3, {PLACEHOLDER: 3}),
    ("llamafactory_demo/mllm_demo.json", None, "conversation", CHAT, 6, {PLACEHOLDER: 6}),
    ("llamafactory_demo/reason_tool_use_demo_50.jsonl", None, "conversation", CHAT, 50, {"only tool calls": 11}),
    ("llamafactory_demo/v1_dpo_demo.jsonl", None, "preference", {"response": "chosen_messages"}, 10, {}),
    ("llamafactory_demo/v1_sft_demo.jsonl", None, "conversation", CHAT, 500, {TEMPLATE: 50}),
    ("oasst_seed/realistic_seed_data.json", None, "conversation", CHAT, 265, {}),
    ("oasst_zh/oaast_sft_zh.json", None, "instruction with history", {**ALPACA, "history": "history"}, 689, {}),
    ("unieval/topical_chat.json", TOPICAL, PLAIN, {}, 360, {}),
]
"""File, choice, layout, columns, rows and unscorable rows by reason, of every instruction dataset at hand."""


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "choice", "layout", "fields", "rows", "unscorable"), SHARED, ids=lambda v: str(v)[:50]
)
def test_every_shared_dataset_goes_through(
    shared_data: Path,
    file: str,
    choice: str | None,
    layout: str,
    fields: dict[str, str],
    rows: int,
    unscorable: dict[str, int],
) -> None:
    dataset = load_source(shared_data / file).dataset
    if choice:
        with pytest.raises(ColumnsError, match="say which column is"):
            prepare(dataset)
    dataset, columns = prepare(dataset, Columns.parse(choice) if choice else None)
    pairs = columns.pairs(dataset[:])
    assert columns.layout == layout
    assert columns.mapping == (Columns.parse(choice).mapping if choice else fields)
    assert len(pairs) == rows
    assert Counter(filter(None, pairs.reasons)) == unscorable


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "file", ["koala_test_set", "mt_bench_question", "vicuna_reference_gpt-4", "wizardlm_test_set", "judge_prompts"]
)
def test_every_shared_set_without_responses_is_refused(shared_data: Path, file: str) -> None:
    with pytest.raises(ColumnsError, match="no response column"):
        prepare(load_source(shared_data / "eval_sets" / f"{file}.jsonl").dataset)


HUB_CARD = b"""---
configs:
- config_name: small
  data_files:
  - {split: train, path: small/train.jsonl}
  - {split: test, path: small/test.jsonl}
- config_name: large
  data_files:
  - {split: train, path: large.jsonl}
---
"""

HUB_SCRIPT = """
import json, sys
from im_datasets.common.errors import SourceError
from im_datasets.data.source import load_source
for call in json.loads(sys.argv[1]):
    try:
        source = load_source(**call)
        print(json.dumps([source.dataset.to_list(), source.info]))
    except SourceError as error:
        print(json.dumps(str(error)))
"""


def _from_hub(endpoint: str, home: Path, calls: list[dict[str, Any]], **settings: str) -> list[Any]:
    """What `load_source` gives for each call, in a fresh process that talks to this Hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        **settings,
    }
    command = [sys.executable, "-c", HUB_SCRIPT, json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_load_source_from_a_hub(tmp_path: Path) -> None:
    files = {
        "README.md": HUB_CARD,
        "small/train.jsonl": lines(ROWS).encode(),
        "small/test.jsonl": lines(ROWS[:1]).encode(),
        "large.jsonl": lines(ROWS * 2).encode(),
    }
    name: dict[str, Any] = {"data": "owner/name"}
    small = {**name, "config": "small"}
    with serve(files) as (endpoint, sha):
        loaded, pinned, streamed, *problems = _from_hub(
            endpoint,
            tmp_path,
            [
                {**small, "split": "train"},
                {**small, "split": "test", "revision": sha},
                {**name, "config": "large", "streaming": True, "limit": 3},
                name,
                small,
                {**small, "split": "dev"},
                {**name, "config": "huge"},
                {**small, "revision": "gone"},
                {"data": "owner/none"},
                {"data": "owner/gated"},
            ],
        )
    assert loaded[0] == ROWS
    described = {
        "kind": "hub",
        "id": "owner/name",
        "config": "small",
        "split": "train",
        "revision": sha,
        "rows": 6,
    }
    assert described.items() <= loaded[1].items()
    assert (pinned[0], pinned[1]["revision"]) == (ROWS[:1], sha)
    assert (streamed[0], streamed[1]["revision"]) == (ROWS[:3], sha)
    for problem, match in zip(
        problems,
        [
            r"pick one among the available configs: \['small', 'large'\].*--config",
            "has the splits train, test; pass one as --split",
            "has no split 'dev'; it has: train, test",
            r"'huge' not found. Available: \['small', 'large'\].*--config",
            "Revision 'gone' doesn't exist.*--revision",
            "no file or folder owner/none, and on the Hub: .*doesn't exist.*hf auth login",
            "gated dataset.*hf auth login",
        ],
        strict=True,
    ):
        assert re.search(match, problem), problem
        assert "\n" not in problem
    (cached,) = _from_hub(endpoint, tmp_path, [{**small, "split": "train"}], HF_HUB_OFFLINE="1")
    assert (cached[0], cached[1]["revision"]) == (ROWS, sha)


def test_load_source_takes_a_files_name_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "aXXb.csv").write_text("instruction,output\np,q\nr,s\n")
    (tmp_path / "a*b.csv").write_text("instruction,output\nx,y\n")
    (tmp_path / "v[2]").mkdir()
    (tmp_path / "v[2]" / "data.jsonl").write_text(lines(ROWS))
    assert load_source(tmp_path / "a*b.csv").dataset.to_list() == [{"instruction": "x", "output": "y"}]
    for streaming in (False, True):
        assert load_source(tmp_path / "v[2]" / "data.jsonl", streaming=streaming).dataset.to_list() == ROWS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("instruction,output\na,b,c\nd,e,f\n", "the first row under the header of r.csv has 3 values for 2 columns"),
        ("instruction,output\na,b,c,d\n", "has 4 values for 2 columns; name every column"),
        ("instruction,output\na,b\nc,d,e\n", "Expected 2 fields in line 3, saw 3"),
        ("instruction,output,output\na,b,c\n", "which column of r.csv is 'output'.*names it twice"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_load_source_asks_where_a_csv_has_two_readings(tmp_path: Path, text: str, told: str, streaming: bool) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(SourceError, match=told):
        load_source(tmp_path / "r.csv", streaming=streaming)


def test_load_source_reads_a_csv_with_unnamed_columns_and_short_rows(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(",instruction,output,\n0,a,b,\n1,c\n")
    rows = load_source(tmp_path / "r.csv").dataset
    assert rows.select_columns(["instruction", "output"]).to_list() == [
        {"instruction": "a", "output": "b"},
        {"instruction": "c", "output": ""},
    ]


@pytest.mark.parametrize("as_list", [False, True])
def test_load_source_keeps_rows_with_half_a_surrogate_pair(tmp_path: Path, as_list: bool) -> None:
    text = '{"instruction": "a\\ud800b", "output": "c", "meta": {"\\udc00": ["\\ud83d\\ude00"]}}'
    (tmp_path / "r.json").write_text(f"[{text}]" if as_list else f"{text}\n{text}\n")
    rows = load_source(tmp_path / "r.json").dataset
    assert rows[0] == {"instruction": f"a{HALF_PAIR}b", "output": "c", "meta": {HALF_PAIR: ["😀"]}}
    assert Columns("instruction", "output").pairs(rows[:1]).reasons == [Reason.BROKEN_TEXT]


@pytest.mark.parametrize("as_list", [False, True])
def test_load_source_says_where_json_is_nested_too_deeply(tmp_path: Path, as_list: bool) -> None:
    text = '{"instruction": "a", "output": ' + "[" * 3000 + "]" * 3000 + "}"
    (tmp_path / "r.json").write_text(f"[{text}]" if as_list else '{"instruction": "a", "output": "b"}\n' + text)
    with pytest.raises(SourceError, match=f"line {1 if as_list else 2} of r.json is nested"):
        load_source(tmp_path / "r.json")


def test_load_source_leaves_parquet_files_without_rows_out(tmp_path: Path) -> None:
    # With a row group of no rows, as pyarrow writes it.
    pq.write_table(pa.table({"instruction": pa.array([], pa.string())}), tmp_path / "a.parquet")
    for streaming in (False, True):
        with pytest.raises(SourceError, match=r"no rows in a\.parquet"):
            load_source(tmp_path / "a.parquet", streaming=streaming)
    Dataset.from_list(ROWS).to_parquet(tmp_path / "b.parquet")
    assert load_source(tmp_path).dataset.to_list() == ROWS


@pytest.mark.parametrize("name", ["", " "])
def test_load_source_refuses_an_empty_name(name: str) -> None:
    with pytest.raises(SourceError, match="the data has an empty name"):
        load_source(name)
