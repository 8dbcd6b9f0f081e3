"""Progress: a bar that never goes back, and a log that a machine can read."""

import io
import json

import pytest

from im_datasets.common.errors import OutputError
from im_datasets.models.meter import Meter
from im_datasets.scoring.progress import Progress, followed, opened_log
from im_datasets.scoring.shards import ShardMeter, Shards


@pytest.fixture
def shards(tmp_path):
    return Shards(tmp_path, "digest", 25, 10)


def test_log_tells_each_shard_with_speed_and_time_left(shards, monkeypatch):
    log = io.StringIO()
    progress = Progress(shards, 15, show=False, log=log)
    monkeypatch.setattr(Progress, "elapsed", 10.0)
    meter = ShardMeter({"read": Meter(seconds=1.0), "im_mtld": Meter(seconds=3.0, tokens=500)})
    progress.moved(1, 5, 100)
    progress.finished(1, meter)
    progress.finished(2, meter)
    first, second = map(json.loads, log.getvalue().splitlines())
    assert (first["event"], first["shard"], first["rows_done"], first["rows"]) == ("shard", 1, 20, 25)
    assert first["rows_per_second"] == 1.0  # ten rows in ten seconds
    assert first["tokens_per_second"] == 50.0
    assert first["seconds_left"] == 5.0
    assert first["share"] == {"read": 0.25, "im_mtld": 0.75}
    assert (second["rows_done"], second["seconds_left"]) == (25, 0.0)


def test_bar_begins_at_what_is_there_and_never_goes_back(shards, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    progress = Progress(shards, 15, show=True, log=None)
    assert progress._bar.n == 10
    seen = []
    for rows in (3, 7, 5, 10):
        progress.moved(1, rows, 0)
        seen.append(progress._bar.n)
    progress.close()
    assert seen == [13, 17, 17, 20]


def test_followed_run_begins_with_what_an_earlier_one_finished(shards, tmp_path):
    with followed(shards, [1, 2], show=False, log=tmp_path / "log.jsonl") as progress:
        progress.finished(2, ShardMeter())
    start, shard = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (start["event"], start["rows"], start["shards"], start["resumed_shards"]) == ("start", 25, 3, 1)
    assert shard["rows_done"] == 15  # ten of the first shard, five of the last


def test_log_is_added_to(tmp_path):
    for event in ("one", "two"):
        with opened_log(tmp_path / "log.jsonl") as log:
            log.write(event + "\n")
    assert (tmp_path / "log.jsonl").read_text() == "one\ntwo\n"


def test_log_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write the log"), opened_log(tmp_path / "no" / "log.jsonl"):
        pass
