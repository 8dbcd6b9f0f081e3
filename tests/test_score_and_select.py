"""score and select as two steps: the same rows and scores as mine's, complete files or none."""

import errno
import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from im_datasets import mine, pipeline, verify
from im_datasets.common.errors import OutputError, SelectionError
from im_datasets.data.request import SourceRequest
from im_datasets.models.embedder import Embedder
from im_datasets.pipeline import score_files, select_files
from im_datasets.scoring import scored_files
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.scoring.request import RunRequest, ScoringRequest
from im_datasets.scoring.scored_files import read_scored
from im_datasets.selection.request import SelectionRequest


def _score(data, out, *, limit=None, **run):
    scoring = ScoringRequest(SourceRequest(data, limit=limit))
    return score_files(scoring, out, RunRequest(progress=False, **run))


def _select(scored, out, *, top_k=3, near_duplicates=None, **run):
    selection = SelectionRequest(top_k=top_k, near_duplicates=near_duplicates)
    return select_files(scored, out, selection, run=RunRequest(progress=False, **run))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    topics = ["tea", "rain", "chess", "bread", "rivers", "clocks", "bees", "salt"]
    rows = [
        {"instruction": f"Write of {t}.", "output": f"Here is {t}: people like {t}.", "n": n}
        for n, t in enumerate(topics)
    ]
    rows.append({"instruction": "Say nothing.", "output": "", "n": 8})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scored_files, "FILE_ROWS", 4)
        return _score(data, tmp_path_factory.mktemp("out") / "scored")


def test_score_files_writes_shards_and_a_record(scored, data):
    names = sorted(path.name for path in scored.path.iterdir())
    assert names == [*(f"data-{n:05d}-of-00003.parquet" for n in range(3)), "record.json"]
    assert [path.name for path in scored.path.parent.iterdir()] == ["scored"]
    rows = load_dataset(str(scored.path), split="train")
    assert rows["n"][:] == list(range(9))
    assert rows["im_unscorable"][8] == "empty response"
    assert ScoringRecord.load(scored.path / "record.json") == scored.record
    assert scored.record.throughput["shards"] == 1


def test_score_files_again_repeats_nothing(scored, data, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored again"))
    again = _score(data, scored.path)
    assert again.repeated
    assert again.record == scored.record
    with pytest.raises(OutputError, match="holds another result; pass --overwrite"):
        _score(data, scored.path, limit=3)


def test_select_files_gives_what_mine_gives(scored, data, tmp_path):
    selected = _select(scored.path, tmp_path / "selected", top_k=3)
    mined = mine(data, tmp_path / "mined", top_k=3, progress=False)
    for side in ("kept", "dropped"):
        assert getattr(selected.selection, side).to_pandas().equals(getattr(mined.selection, side).to_pandas())
    assert {path.name for path in selected.folder.iterdir()} == {path.name for path in mined.folder.iterdir()}
    with pytest.raises(OutputError, match="holds another result"):
        _select(scored.path, tmp_path / "selected", top_k=2)
    assert len(_select(scored.path, tmp_path / "selected", top_k=2, overwrite=True).selection.kept) == 2


def test_select_files_tells_both_commands_as_one_that_a_shell_runs(data, tmp_path):
    (tmp_path / "im-datasets").write_text('#!/bin/sh\necho "$#:$*"\n')
    (tmp_path / "im-datasets").chmod(0o755)
    scoring = ["im-datasets", "score", "my rows.jsonl", "--out", str(tmp_path / "scored")]
    _score(data, tmp_path / "scored", command=scoring)
    selecting = ["im-datasets", "select", "scored", "--top-k", "3", "--out", "it's"]
    selected = _select(tmp_path / "scored", tmp_path / "selected", top_k=3, command=selecting)
    line = next(line for line in (selected.folder / "README.md").read_text().splitlines() if line.startswith("sh -c"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "4:score my rows.jsonl --out scored\n6:select scored --top-k 3 --out it's\n"
    assert shlex.split(line) == selected.record.command
    assert "failed" not in {check.outcome for check in verify(selected.folder, sample=2, seed=1).checks}


@pytest.mark.parametrize("commands", [(["score"], None), (None, ["select"])])
def test_select_files_tells_no_command_that_repeats_only_half(scored, tmp_path, monkeypatch, commands):
    given = read_scored(scored.path)
    monkeypatch.setattr(
        pipeline, "read_scored", lambda _: replace(given, record=replace(given.record, command=commands[0]))
    )
    selected = _select(scored.path, tmp_path / "selected", top_k=3, command=commands[1])
    assert selected.record.command is None


def _of_embedder(record, model, revision):
    """A record whose rows were scored with another embedder."""
    settings = {"embedder": {"model": model, "revision": None, "dtype": "float32", "device": None, "max_tokens": None}}
    told = IndicatorRecord("Similarity", "1", ["im_similarity"], settings, {"id": model, "revision": revision})
    return replace(record, indicators=[IndicatorRecord("MTLD", "1", ["im_mtld"], {}), told])


def test_select_files_by_an_embedder_that_is_not_here_asks_for_it(scored, tmp_path, monkeypatch):
    given = read_scored(scored.path)
    foreign = replace(given, record=_of_embedder(given.record, "/models/mine", "sha256:1"))
    monkeypatch.setattr(pipeline, "read_scored", lambda _: foreign)
    message = r"that of Similarity cannot be had here: its model '/models/mine' .*; select in Python with select\("
    with pytest.raises(SelectionError, match=message):
        _select(scored.path, tmp_path / "selected", top_k=3, near_duplicates=0.99)
    assert not (tmp_path / "selected").exists()


def test_select_files_compares_by_the_embedder_of_the_record(scored):
    commit = "0123456789" * 4
    pinned = Embedder(model="a/b", revision=commit)
    assert pipeline._scoring_embedder(_of_embedder(scored.record, "a/b", commit)) == pinned
    assert pipeline._scoring_embedder(scored.record) == Embedder()
    assert pipeline._scoring_embedder(replace(scored.record, indicators=[])) == Embedder()


def test_score_files_into_one_file(data, tmp_path):
    out = tmp_path / "scored.parquet"
    _score(data, out)
    assert {path.name for path in tmp_path.iterdir()} == {"scored.parquet", "scored.record.json"}
    assert len(read_scored(out).dataset) == 9
    assert _score(data, out).repeated
    with pytest.raises(OutputError, match="holds another result; pass --overwrite"):
        _score(data, out, limit=3)
    assert _score(data, out, limit=3, overwrite=True).record.rows == 3


@pytest.mark.parametrize("name", ["scored", "scored.parquet"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows, record: rows.unlink(), r"this very result, damaged: it (lacks data-00001|holds no Parquet)"),
        (lambda rows, record: rows.write_text("x"), "this very result, damaged: it holds no Parquet with the column"),
        (lambda rows, record: record.write_text("{"), r"a damaged result \(.*record.json is not a scoring record"),
    ],
    ids=["rows gone", "rows torn", "record torn"],
)
def test_score_files_says_that_a_result_is_damaged_and_replaces_it_when_asked(
    data, tmp_path, monkeypatch, name, spoil, told
):
    monkeypatch.setattr(scored_files, "FILE_ROWS", 5)
    out = tmp_path / name
    _score(data, out)
    rows = out / "data-00001-of-00002.parquet" if out.is_dir() else out
    spoil(rows, scored_files.record_path(out))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored"))
        with pytest.raises(OutputError, match=f"holds {told}.*; pass --overwrite"):
            _score(data, out)
    assert not _score(data, out, overwrite=True).repeated
    assert _score(data, out).repeated


def test_score_files_never_replaces_what_it_did_not_write(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored"))
    own, folder = tmp_path / "rows.parquet", tmp_path / "rows"
    folder.mkdir()
    Dataset.from_json(str(data)).to_parquet(own)
    Dataset.from_json(str(data)).to_parquet(folder / "data-00000-of-00001.parquet")
    (folder / "record.json").write_text('{"artist": "me"}')
    with pytest.raises(OutputError, match=r"is there without a rows.record.json beside it; pass another name"):
        _score(own, own)
    with pytest.raises(OutputError, match="beside it; --overwrite only replaces what score wrote; pass another name"):
        _score(own, own, overwrite=True)
    with pytest.raises(
        OutputError, match=r"record.json is no scoring record and .*rows holds no scores.*; move them away"
    ):
        _score(data, folder, overwrite=True)
    (tmp_path / "rows.record.json").write_text('{"artist": "me"}')
    with pytest.raises(OutputError, match=r"record.json is no scoring record and .*rows.parquet holds no scores"):
        _score(data, own, overwrite=True)
    (folder / "data-mine.parquet").write_text("mine")
    with pytest.raises(OutputError, match=r"holds data-mine.parquet, which score did not write; pass another folder"):
        _score(data, folder, overwrite=True)


def test_score_files_finds_out_where_it_cannot_write_before_it_reads(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "read_source", lambda *_: pytest.fail("read the data"))
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "one.record.json").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder.parquet is a folder; pass the name of a file"):
        _score(data, tmp_path / "folder.parquet")
    with pytest.raises(OutputError, match=r"one.record.json is a folder; pass the name of a file"):
        _score(data, tmp_path / "one.parquet")
    with pytest.raises(OutputError, match=r"^cannot write .*scored.parquet: .*; make room for it, or pass"):
        _score(data, tmp_path / "file/scored.parquet")


def test_score_files_into_one_file_beside_a_file_or_a_link(data, tmp_path):
    (tmp_path / "scored").write_text("of another kind")
    (tmp_path / "disk").mkdir()
    (tmp_path / "scored.parquet").symlink_to(tmp_path / "disk/rows.parquet")
    _score(data, tmp_path / "scored.parquet")
    assert _score(data, tmp_path / "scored.parquet").repeated
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["rows.parquet"]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "scored", "scored.parquet", "scored.record.json"}


def test_score_files_that_fails_to_replace_a_file_leaves_the_old_one(data, tmp_path, monkeypatch):
    out = tmp_path / "scored.parquet"
    old = _score(data, out).record

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "to_parquet", full)
        with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
            _score(data, out, limit=3, overwrite=True)
    assert read_scored(out).record == old
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _refused_for(Path.replace, "scored.parquet"))
        with pytest.raises(OutputError, match=r"cannot write .*/scored.parquet: Permission denied; make room for it"):
            _score(data, out, limit=3, overwrite=True)
    with pytest.raises(OutputError, match="has 9 rows, its record tells of 0; score again"):
        read_scored(out)
    assert _score(data, out, limit=3, overwrite=True).record.rows == 3
    assert {path.name for path in tmp_path.iterdir()} == {"scored.parquet", "scored.record.json"}


def _refused_for(replace, name):
    def refused(path, target):
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(path, target)

    return refused


def test_read_scored_refuses_what_is_none(scored, tmp_path):
    with pytest.raises(OutputError, match=r"is no scored dataset \(it needs Parquet and record.json\)"):
        read_scored(tmp_path)
    (tmp_path / "record.json").write_bytes((scored.path / "record.json").read_bytes())
    only = tmp_path / "data-00000-of-00001.parquet"
    Dataset.from_dict({"n": [1, 2]}).to_parquet(only)
    with pytest.raises(OutputError, match="holds no Parquet with the column im_log_loss; score again"):
        read_scored(tmp_path)
    Dataset.from_dict({"im_log_loss": [1.0, 2.0]}).to_parquet(only)
    with pytest.raises(OutputError, match="has 2 rows, its record tells of 9; score again"):
        read_scored(tmp_path)
    only.rename(tmp_path / "data-00001-of-00002.parquet")
    with pytest.raises(OutputError, match=r"lacks data-00000-of-00002.parquet; score again"):
        read_scored(tmp_path)
    (tmp_path / "data-00000-of-00001.parquet").write_text("")
    with pytest.raises(OutputError, match=r"holds data-00001-of-00002.parquet of another result; score again"):
        read_scored(tmp_path)


def test_select_files_by_targets_keeps_what_mine_keeps(data, scored, tmp_path):
    targets = [("Write of coffee.", "Coffee: people drink it."), ("Write of a lake.", "Here is a lake.")]
    selection = SelectionRequest(top_k=3, targets=targets)
    selected = select_files(scored.path, tmp_path / "selected", selection, run=RunRequest(progress=False))
    mined = mine(data, tmp_path / "mined", top_k=3, targets=targets, progress=False)
    for column in ("n", "im_rank", "im_target"):
        assert selected.selection.kept[column][:] == mined.selection.kept[column][:]
    assert selected.record.selection["targets"] == mined.record.selection["targets"]
    assert verify(selected.folder).ok


def test_the_scoring_embedder_is_no_causal_model(scored):
    told = _of_embedder(scored.record, "/models/mine", "sha256:1")
    causal = replace(told.indicators[1], settings={"embedder": {"model": "/models/mine", "kind": "causal"}})
    assert pipeline._scoring_embedder(replace(told, indicators=[causal])) == Embedder()
