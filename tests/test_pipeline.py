"""mine: a complete folder or none, the same result again for nothing, nothing of the user's replaced."""

import errno
import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from im_datasets import LinearRule, mine, pipeline, verify
from im_datasets.cli import main as cli
from im_datasets.common.errors import HubError, OutputError, RuleError, SelectionError, SourceError
from im_datasets.data.columns import Columns
from im_datasets.indicators import Length, Quality
from im_datasets.models.embedder import Embedder
from im_datasets.report import result_folder
from im_datasets.report.formatting import read_in_part
from im_datasets.report.result_folder import load_result
from im_datasets.scoring import assembly
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection import contamination


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight rows: five whole answers, an echo, an empty one, a wrong one."""
    rows = [
        ("What is the capital of Italy?", "The capital of Italy is Rome."),
        ("Name three primary colours.", "Red, yellow and blue are the primary colours."),
        ("How do bees make honey?", "Bees gather nectar and thicken it into honey inside the hive."),
        ("Why is the sky blue?", "Air scatters the blue part of sunlight more than the red part."),
        ("What does a thermometer measure?", "A thermometer measures temperature."),
        ("Explain what a verb is.", "Explain what a verb is."),
        ("Write a haiku about rain.", ""),
        ("How long is a marathon?", "Bees gather nectar and thicken it into honey inside the hive."),
    ]
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [json.dumps({"instruction": x, "output": y, "n": n}) for n, (x, y) in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def mined(data, tmp_path_factory):
    return mine(data, tmp_path_factory.mktemp("out") / "mined", top_k=4, progress=False)


def test_mine_writes_every_part(mined):
    names = {path.name for path in mined.folder.iterdir()}
    assert names >= {"kept.parquet", "dropped.parquet", "README.md", "record.json", "report.html", "figures"}
    assert not mined.repeated


def test_mine_keeps_whole_answers(mined):
    assert set(mined.selection.kept["n"]) <= {0, 1, 2, 3, 4}


def test_mine_output_opens_with_load_dataset(mined):
    kept = load_dataset(str(mined.folder), split="train")
    dropped = load_dataset(str(mined.folder), "dropped", split="train")
    assert kept.to_list() == mined.selection.kept.to_list()
    assert sorted([*kept["n"], *dropped["n"]]) == list(range(8))


def test_mine_record_tells_the_selection(mined, data):
    record = ScoringRecord.load(mined.folder / "record.json")
    assert record == mined.record
    assert record.selection["top_k"] == 4
    assert record.selection["kept"] == 4
    assert sum(record.selection["reasons"].values()) == record.selection["dropped"] == 4
    assert record.source["rows"] == record.rows == 8
    assert str(data.parent) not in (mined.folder / "README.md").read_text()


def test_mine_again_repeats_nothing(mined, data, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored again"))
    again = mine(data, mined.folder, top_k=4, progress=False)
    assert again.repeated
    assert again.record == mined.record
    assert again.selection.kept.to_list() == mined.selection.kept.to_list()
    assert again.selection.settings == json.loads(json.dumps(mined.selection.settings))


def test_mine_refuses_to_replace_another_result(mined, data):
    with pytest.raises(OutputError, match="holds another result; pass --overwrite"):
        mine(data, mined.folder, top_k=3, progress=False)


def test_mine_again_by_an_embedder_of_other_weights_is_another_request(mined, data, monkeypatch):
    monkeypatch.setattr(Embedder, "weights", lambda self: "sha256:other")
    with pytest.raises(OutputError, match="holds another result; pass --overwrite"):
        mine(data, mined.folder, top_k=4, progress=False)


def _shell(command):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == 0


@pytest.mark.parametrize("order", [1, -1], ids=["shell first", "Python first"])
def test_mine_of_the_readmes_command_and_of_its_snippet_is_one_request(tmp_path, monkeypatch, capsys, order):
    root = Path(__file__).parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^im-datasets mine .*--out mined$", readme, re.MULTILINE)[0]
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if " = mine(" in code)
    shutil.copytree(root / "examples/data", tmp_path / "examples/data")
    monkeypatch.chdir(tmp_path)
    first, second = [lambda: _shell(command), lambda: exec(snippet, {})][::order]
    first()
    record = Path("mined/record.json").read_bytes()
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored again"))
    second()
    assert Path("mined/record.json").read_bytes() == record


def test_mine_asked_in_other_words_is_one_request(mined, data, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored again"))
    monkeypatch.chdir(data.parent)
    spelled_out = {"indicators": [Quality(embedder=Embedder())], "license": "", "language": [], "columns": None}
    columns = Columns(instruction="instruction", response="output")
    for source, terms in [("rows.jsonl", {}), (data, spelled_out), (str(data), {"columns": columns})]:
        assert mine(source, mined.folder, top_k=np.int64(4), progress=False, **terms).repeated


@pytest.mark.parametrize(
    "terms",
    [
        {"top_k": 4, "seed": 1},
        {"top_k": 4, "license": "mit"},
        {"top_k": 4, "exclude_contaminated": ["A text."]},
        {"fraction": 0.5},
        {"top_k": 4, "indicators": (Length(),)},
        {"top_k": 4, "near_duplicates": 0.9},
    ],
)
def test_mine_asked_for_something_else_is_another_request(mined, data, terms):
    with pytest.raises(OutputError, match="holds another result"):
        mine(data, mined.folder, progress=False, **terms)


def test_mine_overwrites_when_asked(data, tmp_path):
    mine(data, tmp_path / "out", top_k=4, progress=False)
    second = mine(data, tmp_path / "out", top_k=2, overwrite=True, progress=False)
    assert len(second.selection.kept) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_mine_never_replaces_what_it_did_not_write(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="only replaces results of im-datasets"):
        mine(data, tmp_path, top_k=4, overwrite=True, progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_mine_refuses_a_file_as_folder(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        mine(data, tmp_path / "file", top_k=4, progress=False)


@pytest.mark.parametrize("part", ["score", "select_rows", "write_report", "write_card"])
def test_mine_interrupted_leaves_what_was_scored_and_nothing_else(data, tmp_path, monkeypatch, part):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline if hasattr(pipeline, part) else result_folder, part, interrupted)
        with pytest.raises(KeyboardInterrupt):
            mine(data, tmp_path / "out", top_k=4, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ([] if part == "score" else [".out.partial"])
    done = mine(data, tmp_path / "out", top_k=3, progress=False)
    assert done.record.throughput["resumed_shards"] == (0 if part == "score" else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_mine_refuses_unfinished_work_of_another_request(data, tmp_path):
    with pytest.raises(SelectionError, match=r"top_k=8, but only 7 of 8 rows could be scored"):
        mine(data, tmp_path / "out", top_k=8, progress=False)
    (tmp_path / "other.jsonl").write_text(data.read_text() + data.read_text())
    with pytest.raises(OutputError, match=r"another request \(differing in: source, layout\).*--no-resume"):
        mine(tmp_path / "other.jsonl", tmp_path / "out", top_k=4, progress=False)
    done = mine(tmp_path / "other.jsonl", tmp_path / "out", top_k=4, progress=False, resume=False)
    assert done.record.rows == 16


def test_mine_checks_the_request_before_it_computes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(SelectionError, match=r"top_k=9, but the dataset has 8 rows; ask for 8 or fewer"):
        mine(data, tmp_path / "out", top_k=9, progress=False)
    with pytest.raises(SelectionError, match="top_k"):
        mine(data, tmp_path / "out", progress=False)
    with pytest.raises(RuleError, match="no rule 'v9'"):
        mine(data, tmp_path / "out", top_k=1, rule="v9", progress=False)
    with pytest.raises(SourceError, match="nowhere"):
        mine(tmp_path / "nowhere.jsonl", tmp_path / "out", top_k=1, progress=False)


def test_mine_takes_a_dataset_and_a_rule(tmp_path):
    rows = Dataset.from_dict({"prompt": ["Say hello.", "Name a fruit."], "completion": ["Hello!", "An apple."]})
    done = mine(rows, tmp_path / "out", rule=LinearRule.load("embedded"), top_k=1, limit=1, progress=False)
    assert done.record.rows == 1
    assert (done.record.source["rows"], done.record.source["limit"]) == (1, 1)
    assert read_in_part(done.record.source) in (done.folder / "README.md").read_text()


def test_mine_of_scores_beyond_memory_gives_rows_that_outlast_the_unfinished_work(data, mined, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "IN_MEMORY_BYTES", 0)
    large = mine(data, tmp_path / "out", top_k=4, progress=False)
    assert (large.repeated, large.selection.record) == (False, large.record)
    for side in ("kept", "dropped"):
        rows = pickle.loads(pickle.dumps(getattr(large.selection, side)))
        assert rows.to_pandas().equals(getattr(mined.selection, side).to_pandas())
    assert large.selection.kept.map(_doubled, num_proc=2)["n"][:] == [2 * n for n in mined.selection.kept["n"]]


def _doubled(row):
    return {"n": 2 * row["n"]}


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([{"turns": ["First.", "Then."], "reference": ["a"]}, {"turns": ["Other."]}], ["First.", "Other."]),
        ([{"instruction": "Translate.", "input": "Hi", "output": "Salut"}], ["Translate.\n\nHi"]),
        ([{"instruction": "Translate.", "input": "Hi", "output": ""}], ["Translate.\n\nHi"]),
        (
            [{"Instruction": "Translate.", "Input": "Hi"}, {"Instruction": "Go.", "Input": "<noinput>"}],
            ["Translate.\n\nHi", "Go."],
        ),
        ([{"question": "Why?", "answer": "a", "output": "b"}], ["Why?"]),
        ([{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]}], ["Why?"]),
        ([{"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}], ["Why?"]),
    ],
    ids=["turns", "input", "no answer", "no response", "two responses", "messages", "conversations"],
)
def test_evaluation_texts_reads_any_layout(tmp_path, rows, texts):
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert contamination.evaluation_texts(str(tmp_path / "e.jsonl")) == texts


def test_evaluation_texts_are_those_of_rows_to_be_scored(tmp_path):
    turns = [("human", "Why?"), ("gpt", "So."), ("human", "And how?"), ("gpt", "Thus.")]
    row = {"conversations": [{"from": who, "value": said} for who, said in turns], "system": "Be kind."}
    (tmp_path / "e.jsonl").write_text(json.dumps(row) + "\n")
    read = Columns.detect(row).pairs({name: [value] for name, value in row.items()})
    assert contamination.evaluation_texts(str(tmp_path / "e.jsonl")) == read.instructions


def test_evaluation_texts_counts_rows_that_cannot_be_read(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text('{"prompt": "Why?"}\n{"prompt": " "}\n{"prompt": null}\n')
    told = (
        r"in 2 of the 3 rows of the evaluation set .*\(columns prompt; row 1: missing or empty instruction\); rows that"
    )
    with pytest.warns(UserWarning, match=told):
        assert contamination.evaluation_texts(str(path)) == ["Why?"]
    path.write_text('{"prompt": 3}\n{"prompt": 4}\n')
    with pytest.raises(SourceError, match=r"in 2 of the 2 rows .*row 0: instruction is not text\); name the column of"):
        contamination.evaluation_texts(str(path))


def test_mine_tells_repeats_of_evaluation_rows_by_their_input(tmp_path):
    rows = [{"instruction": "Translate.", "input": text, "output": f"It is {text} there."} for text in ("Hi", "Bye")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "e.jsonl").write_text(json.dumps(rows[0]) + "\n")
    texts = contamination.evaluation_texts(str(tmp_path / "e.jsonl"))
    mined = mine(tmp_path / "rows.jsonl", tmp_path / "out", fraction=1, exclude_contaminated=texts, progress=False)
    assert mined.selection.kept["input"][:] == ["Bye"]
    assert mined.selection.reasons == {"contaminated": 1}


def test_evaluation_texts_refuses_unknown_columns(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(SourceError, match=r"no instructions in the evaluation set .*\['a'\]"):
        contamination.evaluation_texts(str(tmp_path / "e.jsonl"))


@pytest.mark.parametrize(
    ("request_", "sizes"),
    [({"fraction": 1, "limit": 6}, (6, 0)), ({"threshold": -99}, (0, 8))],
    ids=["nothing dropped", "nothing kept"],
)
def test_mine_reads_a_result_with_an_empty_side_back(data, tmp_path, request_, sizes):
    first = mine(data, tmp_path / "out", progress=False, **request_)
    again = mine(data, tmp_path / "out", progress=False, **request_)
    assert again.repeated
    assert (len(again.selection.kept), len(again.selection.dropped)) == sizes
    for side in ("kept", "dropped"):
        assert getattr(again.selection, side).features == getattr(first.selection, side).features
    outcomes = {(check.name, check.outcome) for check in verify(tmp_path / "out", sample=2, seed=1).checks}
    assert "failed" not in {outcome for _, outcome in outcomes}
    assert {("counts", "passed"), ("cut", "passed"), ("statistics", "passed")} <= outcomes


def test_mine_into_the_same_folder_again_is_what_load_dataset_gives(data, tmp_path):
    for top_k in (4, 2):
        mined = mine(data, tmp_path / "mined_again", top_k=top_k, overwrite=True, progress=False)
        code = "import sys; from datasets import load_dataset; print(*load_dataset(sys.argv[1], split='train')['n'])"
        done = subprocess.run(
            [sys.executable, "-c", code, "mined_again"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert list(map(int, done.stdout.split())) == mined.selection.kept["n"][:]


def test_mine_finds_out_where_it_cannot_write_before_it_computes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "read_source", lambda *_, **__: pytest.fail("read the data"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file/sub", Path("/proc/x/y"), tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match=f"^cannot write {re.escape(str(out))}: .*; make room for it, or pass"):
            mine(data, out, top_k=4, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("out", [".", ".."])
def test_mine_refuses_the_folder_it_stands_in(data, tmp_path, monkeypatch, out):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(OutputError, match="the folder you are in, or above it, and cannot be replaced whole; pass a"):
        mine(data, out, top_k=4, progress=False)


def test_mine_writes_to_what_a_link_leads_to(data, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    mine(data, tmp_path / "out", top_k=4, progress=False)
    mine(data, tmp_path / "out", top_k=2, overwrite=True, progress=False)
    assert (tmp_path / "out").is_symlink()
    assert len(load_result(tmp_path / "disk").kept) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "out"}


def test_mine_tells_a_full_disk_in_one_line(data, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("im_datasets.report.result_folder.write_report", full)
    with pytest.raises(OutputError, match=r"cannot write .*/out: No space left on device"):
        mine(data, tmp_path / "out", top_k=4, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]  # what was scored


def test_mine_never_deletes_what_somebody_put_beside_a_result(data, tmp_path, monkeypatch):
    mine(data, tmp_path / "out", top_k=4, progress=False)
    (tmp_path / "out/mynotes.txt").write_text("mine")
    (tmp_path / "out/figures/sketch.png").write_text("mine")
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(OutputError, match=r"holds figures/sketch.png, mynotes.txt, which im-datasets did not write"):
        mine(data, tmp_path / "out", top_k=2, overwrite=True, progress=False)
    assert (tmp_path / "out/mynotes.txt").read_text() == "mine"
    assert mine(data, tmp_path / "out", top_k=4, progress=False).repeated


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda out: (out / "report.html").unlink(), "this very result, damaged: report.html is missing"),
        (
            lambda out: (out / "figures/indicators.png").unlink(),
            "this very result, damaged: figures/indicators.png is missing",
        ),
        (
            lambda out: (out / "record.json").write_text("{"),
            r"a damaged result \(.*record.json is not a scoring record",
        ),
        (lambda out: (out / "kept.parquet").write_text("x"), r"a damaged result \(.*kept.parquet cannot be read"),
    ],
)
def test_mine_says_that_a_result_is_damaged_and_replaces_it_when_asked(data, tmp_path, spoil, told):
    mine(data, tmp_path / "out", top_k=4, progress=False)
    spoil(tmp_path / "out")
    with pytest.raises(OutputError, match=f"holds {told}.*; pass --overwrite"):
        mine(data, tmp_path / "out", top_k=4, progress=False)
    assert not mine(data, tmp_path / "out", top_k=4, overwrite=True, progress=False).repeated
    assert mine(data, tmp_path / "out", top_k=4, progress=False).repeated


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"license": "mit<script>"}, "knows no licence 'mit<script>'"),
        ({"language": ["en", "klingonish language"]}, "knows no language 'klingonish language'"),
    ],
)
def test_mine_checks_licence_and_language_as_push_does(data, tmp_path, monkeypatch, facts, told):
    monkeypatch.setattr(pipeline, "read_source", lambda *_, **__: pytest.fail("read the data"))
    with pytest.raises(HubError, match=told):
        mine(data, tmp_path / "out", top_k=4, progress=False, **facts)


def test_mine_keeps_a_row_with_half_a_surrogate_pair_as_one_that_cannot_be_scored(tmp_path):
    lines = ['{"instruction": "Say hi.", "output": "Hi, I am here."}', '{"instruction": "Bye?", "output": "B\\ud800"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    mined = mine(tmp_path / "rows.jsonl", tmp_path / "out", top_k=1, progress=False)
    assert mined.selection.reasons == {"unscorable: broken text (half a surrogate pair)": 1}
    assert load_result(tmp_path / "out").dropped["instruction"][:] == ["Bye?"]


def test_mine_of_a_result_asks_which_side(mined, tmp_path):
    with pytest.raises(SourceError, match="has the splits dropped, kept; pass one as --split"):
        mine(mined.folder, tmp_path / "out", top_k=1, progress=False)
    again = mine(mined.folder, tmp_path / "out", split="kept", top_k=1, progress=False)
    assert again.selection.kept["n"][:] == mined.selection.kept["n"][:1]


TARGETS = [("Which animals sting?", "Wasps do, a secret answer."), ("What is the capital of Italy?", "Rome.")]


@pytest.fixture(scope="module")
def by_targets(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hidden place")
    path = folder / "targets.json"
    path.write_text(json.dumps([{"instruction": x, "output": y} for x, y in TARGETS]))
    return path, mine(data, folder / "mined", top_k=3, targets=path, progress=False)


def test_mine_by_targets_scores_nearness_and_takes_turns(by_targets):
    _, mined = by_targets
    kept = mined.selection.kept
    # A row that repeats the second target is left out; it had the second turn.
    assert kept["im_rank"][:] == [1, 3, 4]
    assert kept["im_target"][:] == [0, 0, 1]
    assert kept[0]["instruction"] == "How do bees make honey?"
    assert mined.selection.reasons["repeats a target"] == 1
    assert max(kept["im_target_similarity"]) == kept[0]["im_target_similarity"]
    assert verify(mined.folder).ok


def test_mine_by_the_same_targets_finds_the_folder_and_by_others_not(by_targets, data):
    path, mined = by_targets
    assert mine(data, mined.folder, top_k=3, targets=path, progress=False).repeated
    assert mine(data, mined.folder, top_k=3, targets=TARGETS, progress=False).repeated
    with pytest.raises(OutputError, match="another result"):
        mine(data, mined.folder, top_k=3, targets=TARGETS[:1], progress=False)


def test_a_result_by_targets_tells_how_and_nothing_of_their_texts_or_place(by_targets):
    _, mined = by_targets
    texts = {name: (mined.folder / name).read_text() for name in ("README.md", "report.html", "record.json")}
    for text in texts.values():
        assert "secret" not in text
        assert "hidden place" not in text
    sentence = "Chosen by 2 target examples, each in turn the nearest row that none had taken"
    assert sentence in texts["README.md"]
    assert sentence in texts["report.html"]
    assert "score of the worst kept row" not in texts["report.html"]
    targets = mined.record.selection["targets"]
    assert (targets["examples"], targets["hub"], targets["kind"], targets["model"]["id"]) == (
        2, None, "sentence", "embedded",
    )  # fmt: skip


def test_targets_that_are_not_there_are_refused_before_anything_is_scored(data, tmp_path):
    with pytest.raises(SourceError, match=r"no file or folder .*none\.json"):
        mine(data, tmp_path / "mined", top_k=3, targets=tmp_path / "none.json", progress=False)
    assert not list(tmp_path.iterdir())
