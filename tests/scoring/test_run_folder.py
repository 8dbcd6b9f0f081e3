"""The folder of a run: of one request only, one run at a time, beside the result, removed by nobody but its own run."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

from im_datasets.common.errors import OutputError
from im_datasets.scoring.run_folder import drop_unfinished, note_result, open_shards, unfinished_folder
from im_datasets.scoring.shards import ScoredShard, ShardMeter, Shards

REQUEST = {"source": {"fingerprint": "a"}, "rule": "embedded"}


def write(shards: Shards, shard: int) -> None:
    shards.write(shard, ScoredShard(pa.table({"a": np.zeros(len(shards.span(shard)))}), {}, ShardMeter()))


def test_open_finds_the_finished_shards_again_and_clears_what_is_torn(tmp_path):
    for _ in range(2):
        with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10) as shards:
            if 1 in shards.missing():
                write(shards, 1)
            work = tmp_path / "run" / ".shard-000002.parquet.0123abcd.part"
            work.mkdir()
            (work / "new").write_text("torn")
    assert shards.missing() == [0, 2]
    with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10):
        assert not list((tmp_path / "run").glob(".*.part"))


def test_open_leaves_nothing_where_nothing_was_finished(tmp_path):
    with open_shards(tmp_path / "run", REQUEST, 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_open_refuses_another_request_and_says_what_differs(tmp_path):
    with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10) as shards:
        write(shards, 1)
    changed = {**REQUEST, "source": {"fingerprint": "b"}}
    with (
        pytest.raises(OutputError, match=r"another request \(differing in: source\).*--no-resume"),
        open_shards(tmp_path / "run", changed, 25, shard_rows=10),
    ):
        pass
    with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10) as shards:
        assert shards.missing() == [0, 2]
    with open_shards(tmp_path / "run", changed, 25, shard_rows=10, resume=False) as shards:
        assert shards.missing() == [0, 1, 2]


def test_open_refuses_an_unreadable_request(tmp_path):
    with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10) as shards:
        write(shards, 1)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"cannot be read .*--no-resume"), open_shards(tmp_path / "run", REQUEST, 25):
        pass


@pytest.mark.parametrize("resume", [True, False])
def test_open_never_touches_a_folder_of_something_else(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(OutputError, match=r"not empty and holds no run.json"),
        open_shards(tmp_path, REQUEST, 25, resume=resume),
    ):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_open_refuses_a_second_run(tmp_path):
    code = (
        "import sys, pathlib; from im_datasets.scoring.run_folder import open_shards\n"
        "with open_shards(sys.argv[1], {}, 25):\n    print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(OutputError, match=r"another run is writing to .*run"),
            open_shards(tmp_path / "run", {}, 25),
        ):
            pass
        other.communicate("")
    with open_shards(tmp_path / "run", {}, 25) as shards:
        assert len(shards) == 1


def test_unfinished_folder_lies_beside_what_a_link_leads_to(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert unfinished_folder(tmp_path / "link") == tmp_path.resolve() / ".there.partial"
    monkeypatch.chdir(tmp_path)
    assert unfinished_folder(Path("there/")) == tmp_path.resolve() / ".there.partial"


@pytest.fixture
def unfinished(tmp_path):
    """The unfinished work of ``out``, of which one shard is there."""
    folder = unfinished_folder(tmp_path / "out")
    with open_shards(folder, REQUEST, 25, shard_rows=10) as shards:
        write(shards, 1)
    return folder


def test_drop_unfinished_leaves_what_another_run_is_at(tmp_path, unfinished):
    note_result(tmp_path / "out", "this")
    with FileLock(unfinished / ".lock"):
        drop_unfinished(tmp_path / "out", "this")
    assert (unfinished / "run.json").exists()
    drop_unfinished(tmp_path / "out", "this")
    assert not list(tmp_path.iterdir())


def test_drop_unfinished_leaves_what_is_not_of_this_request(tmp_path, unfinished):
    drop_unfinished(tmp_path / "out", "this")
    note_result(tmp_path / "out", "that")
    drop_unfinished(tmp_path / "out", "this")
    note_result(tmp_path / "out", "this")
    with open_shards(unfinished, REQUEST, 25, shard_rows=10) as shards:
        assert shards.missing() == [0, 2]
    drop_unfinished(tmp_path / "out", "this")  # gone on with, it is nobody's done work
    assert (unfinished / "run.json").exists()


@pytest.mark.parametrize("kill_at", range(5))
def test_open_takes_its_folder_up_again_wherever_clearing_it_was_killed(unfinished, monkeypatch, kill_at):
    class Killed(BaseException):
        pass

    unlink, done = Path.unlink, []

    def stop(path, **options):
        if len(done) == kill_at:
            raise Killed
        done.append(path)
        unlink(path, **options)

    (unfinished / "scores.arrow").touch()
    (unfinished / "shard-000001-a.npy").touch()
    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr(Path, "unlink", stop)
        with open_shards(unfinished, REQUEST, 25, shard_rows=10, resume=False):
            pass
    with open_shards(unfinished, REQUEST, 25, shard_rows=10) as shards:
        assert len(shards) == 3
