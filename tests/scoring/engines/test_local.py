"""LocalEngine: the same values with any number of workers, and no fault that loses or invents one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import indicators_for_tests
import psutil
import pytest
from indicators_for_tests import RULE, Brittle, Cramped, Letters, Mortal, rows

from im_datasets import score
from im_datasets.common.errors import IndicatorError, OutputError
from im_datasets.indicators import MTLD, KNNDistance, Length
from im_datasets.scoring.engines import local
from im_datasets.scoring.engines.local import LocalEngine

HERE = Path(indicators_for_tests.__file__).parent


def run(indicator, dataset, **options):
    return score(dataset, RULE, indicators=[indicator], describe=False, progress=False, **options)


def same(one, other):
    return one.dataset.to_pandas().equals(other.dataset.to_pandas())


def test_workers_give_the_same_values_and_record(tmp_path):
    dataset = rows(90)
    indicators = [MTLD(), Length(), KNNDistance(text="both"), Letters()]
    alone, several = (
        score(dataset, RULE, indicators=indicators, describe=False, progress=False, workers=workers)
        for workers in (1, 2)
    )
    assert same(alone, several)
    assert several.record.unscorable == alone.record.unscorable
    assert several.record.statistics == alone.record.statistics
    assert several.record.throughput["workers"] == 2
    for one, other in zip(alone.record.indicators, several.record.indicators, strict=True):
        assert (one.unscored, one.truncated, one.model) == (other.unscored, other.truncated, other.model)


def test_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path):
    dataset, log = rows(90, poison=33), tmp_path / "log.jsonl"
    killed = run(Mortal(flag=str(tmp_path / "once")), dataset, workers=2, log=log)
    assert same(killed, run(Letters(), dataset))
    (retry,) = [event for line in log.read_text().splitlines() if (event := json.loads(line))["event"] == "retry"]
    assert (retry["shard"], retry["tries"]) == (1, 1)
    assert "SIGKILL" in retry["why"]


def test_row_that_kills_every_worker_is_named_and_finished_shards_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "TRIES", 2)
    before = psutil.Process().children(recursive=True)
    with pytest.raises(IndicatorError, match=r"2 workers died over row 33 .*SIGKILL.*; mend or remove it"):
        run(Mortal(), rows(60, poison=33), workers=2, folder=tmp_path / "run")
    assert not set(psutil.Process().children(recursive=True)) - set(before)
    assert (tmp_path / "run" / "shard-000000.parquet").is_file()


@pytest.mark.parametrize("workers", [1, 2])
def test_row_that_breaks_an_indicator_is_named(workers):
    with pytest.raises(IndicatorError, match=r"Brittle broke on row 47 \(Panic: no way to cut this text\); mend or"):
        run(Brittle(), rows(90, poison=47), workers=workers)


def test_row_that_does_not_fit_is_named_with_the_fix():
    with pytest.raises(IndicatorError, match=r"row 47 \(MemoryError.*pass max_tokens, or shorten or remove it"):
        run(Brittle(error=MemoryError), rows(90, poison=47))


def test_worker_that_cannot_write_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"File too large.*finished shards stay .*make room"):
        run(Cramped(), rows(60), workers=2, folder=tmp_path / "run")


def test_changed_input_under_a_resumed_run_is_refused(tmp_path):
    run(Letters(), rows(60), folder=tmp_path / "run")
    with pytest.raises(OutputError, match=r"another request \(differing in: source\); ask the same"):
        run(Letters(), rows(60, poison=3), folder=tmp_path / "run")
    with pytest.raises(OutputError, match=r"differing in: indicators"):
        run(Letters(seconds=0.001), rows(60), folder=tmp_path / "run")
    assert len(run(Letters(), rows(60, poison=3), folder=tmp_path / "run", resume=False).dataset) == 60


def test_unreadable_shard_alone_is_computed_again(tmp_path):
    notes = tmp_path / "notes"
    first = run(Letters(notes=str(notes)), rows(60), folder=tmp_path / "run")
    notes.unlink()
    (tmp_path / "run" / "shard-000001.parquet").write_bytes(b"torn")
    again = run(Letters(notes=str(notes)), rows(60), folder=tmp_path / "run")
    assert same(first, again)
    assert again.record.throughput["resumed_shards"] == 2
    assert len(notes.read_text().splitlines()) == 3  # one shard of 20 rows in chunks of 8


class Elsewhere(LocalEngine):
    """An engine that is not installed where its run is finished."""

    def run(self, job, watcher):
        for shard in job.missing:
            scored = job.scorer(job.rows(shard), job.shards.span(shard).start)
            scored.meter.engine, scored.meter.version = "elsewhere", "9.9"
            job.shards.write(shard, scored)
            watcher.finished(shard, scored.meter)


def test_run_is_finished_without_the_engine_that_began_it(tmp_path):
    first = run(Letters(), rows(60), folder=tmp_path / "run", engine=Elsewhere())
    (tmp_path / "run" / "shard-000001.parquet").unlink()
    again = run(Letters(), rows(60), folder=tmp_path / "run")
    assert same(first, again)
    assert again.record.engines == {"elsewhere": 2, "local": 1}
    assert again.record.versions["elsewhere"] == "9.9"


def test_workers_have_the_cores_among_them(monkeypatch):
    monkeypatch.setattr(local, "_cores", lambda: 4)
    seen = []

    def popen(command, env, **_):
        seen.append({name: env[name] for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")})
        raise KeyboardInterrupt

    monkeypatch.setattr(local.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        run(Letters(), rows(60), workers=2)
    assert seen == [{"OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2"}]


def test_no_workers_is_refused():
    with pytest.raises(IndicatorError, match="workers=0; pass 1 or more"):
        LocalEngine(0)


PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from dataclasses import dataclass
from indicators_for_tests import RULE, Letters, rows
from im_datasets import score
from im_datasets.scoring import score as scoring

@dataclass(frozen=True, kw_only=True)
class OfThisScript(Letters):
    "Workers know it without importing the script."

scoring.SHARD_ROWS = scoring.CHUNK_ROWS = 20
indicator = OfThisScript(seconds=0.1, notes=sys.argv[2])
score(rows(400), RULE, indicators=[indicator], describe=False, progress=False, folder=sys.argv[1], workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_run_leaves_finished_shards_and_no_process(tmp_path, number):
    notes = tmp_path / "notes"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(notes)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        _until(lambda: len(list((tmp_path / "run").glob("shard-*.parquet"))) >= 3)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(30) != 0
    assert len(workers) == 2
    _until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    finished = len(list((tmp_path / "run").glob("shard-*.parquet")))
    assert 3 <= finished < 20
    if number == signal.SIGKILL:
        notes.unlink()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(notes.read_text().splitlines()) == 20 - finished


def _until(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
