"""RayEngine: bit for bit the local engine's values, whatever order shards come in and whichever worker is lost.

One cluster of two cores for all tests, on loopback; they stay together on one pytest worker.
"""

import errno
import gc
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import indicators_for_tests
import psutil
import pyarrow.parquet as pq
import pytest
from indicators_for_tests import RULE, Brittle, Letters, Mortal, rows

from im_datasets import score, select
from im_datasets.cli import main as cli
from im_datasets.common.errors import EngineError, IndicatorError, OutputError
from im_datasets.data.columns import Columns
from im_datasets.data.source import load_source
from im_datasets.indicators import MTLD, KNNDistance, Length
from im_datasets.report.result_folder import load_result
from im_datasets.scoring.engines import ray as ray_engine
from im_datasets.scoring.engines import ray_cluster
from im_datasets.scoring.engines.base import Job
from im_datasets.scoring.engines.parquet_rows import RowFile, RowFiles
from im_datasets.scoring.engines.ray import NODE, RayEngine, _Run
from im_datasets.scoring.engines.ray_cluster import on_loopback
from im_datasets.scoring.scorer import ShardScorer
from im_datasets.scoring.shards import Shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    # Ray warns of its own settings when it makes them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose workers may ask the tests' Hub."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    before = dict(os.environ)
    # Workers find this folder's modules; Ray writes no token into the home folder.
    paths = os.pathsep.join([str(Path(indicators_for_tests.__file__).parent), os.environ.get("PYTHONPATH", "")])
    os.environ |= {"PYTHONPATH": paths, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    folder = tempfile.mkdtemp(prefix="ray")
    with on_loopback():
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
    yield ray
    with warnings.catch_warnings():
        # Ray forgets the processes that it has ended.
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.clear()
    os.environ |= before


@dataclass(frozen=True)
class Shuffled(RayEngine):
    """Takes the shards in another order."""

    def run(self, job, watcher):
        missing = random.Random(1).sample(list(job.missing), len(job.missing))
        assert missing != list(job.missing)
        super().run(replace(job, missing=missing), watcher)


def run(indicator, dataset, **options):
    return score(dataset, RULE, indicators=[indicator], describe=False, progress=False, **options)


def same(one, other):
    return one.dataset.to_pandas().equals(other.dataset.to_pandas())


def events(log, kind):
    return [event for line in log.read_text().splitlines() if (event := json.loads(line))["event"] == kind]


def test_cluster_is_on_loopback_alone(cluster):
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for process in ours for socket in process.net_connections("inet")]
    listening = {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_ray_gives_the_local_engines_values_and_record(cluster, tmp_path):
    dataset, log, notes = rows(110), tmp_path / "log.jsonl", tmp_path / "notes"
    indicators = [MTLD(), Length(), KNNDistance(text="both"), Letters(seconds=0.05, notes=str(notes))]
    settings = {"indicators": indicators, "describe": False, "progress": False}
    alone = score(dataset, RULE, **settings)
    notes.unlink()
    there = score(dataset, RULE, engine=Shuffled(), log=log, **settings)
    assert same(alone, there)
    assert there.record.engines == {"ray": 6}
    assert alone.record.engines == {"local": 6}
    assert there.record.versions == {**alone.record.versions, "ray": cluster.__version__}
    # As many as did work: the second may have come too late.
    assert there.record.throughput["workers"] == len({line.split()[0] for line in notes.read_text().splitlines()})
    assert there.record.unscorable == alone.record.unscorable
    assert there.record.statistics == alone.record.statistics
    for one, other in zip(alone.record.indicators, there.record.indicators, strict=True):
        assert replace(one, seconds=0, share=0) == replace(other, seconds=0, share=0)
    assert [event["files"] for event in events(log, "reading")] == [False]
    assert sorted(event["shard"] for event in events(log, "shard")) == list(range(6))


def test_worker_that_is_killed_costs_its_shard_only(cluster, tmp_path):
    dataset, log, notes = rows(110, poison=33), tmp_path / "log.jsonl", tmp_path / "notes"
    indicator = Mortal(flag=str(tmp_path / "once"), notes=str(notes))
    killed = run(indicator, dataset, engine=RayEngine(workers=2), log=log)
    assert same(killed, run(Letters(), dataset))
    assert (tmp_path / "once").exists()
    assert len(notes.read_text().splitlines()) <= 5 * 3 + 2 + 3  # chunks of all shards, and of the one that was lost
    assert [(event["shard"], event["tries"]) for event in events(log, "retry")] == [(1, 1)]


def test_row_that_kills_every_worker_is_named_and_finished_shards_stay(cluster, tmp_path, monkeypatch):
    from im_datasets.scoring import score as scoring

    monkeypatch.setattr(ray_engine, "TRIES", 2)
    monkeypatch.setattr(scoring, "SHARD_ROWS", 4)
    first = tmp_path / "run" / "shard-000000.parquet"
    with pytest.raises(IndicatorError, match=r"2 workers died over row 10 .*; mend or remove it and run the same"):
        run(Mortal(after=str(first)), rows(12, poison=10), engine=RayEngine(workers=2), folder=tmp_path / "run")
    assert first.is_file()


def test_row_that_breaks_an_indicator_is_named(cluster):
    with pytest.raises(IndicatorError, match=r"Brittle broke on row 47 \(Panic: no way to cut this text\); mend or"):
        run(Brittle(), rows(90, poison=47), engine=RayEngine(workers=1))


def test_full_disk_is_one_clear_error_and_finished_shards_stay(cluster, tmp_path, monkeypatch):
    put, shards = Shards.put, []

    def fill(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def put_two(self, path, write):
        shards.extend([path] if path.name.startswith("shard-") else [])
        put(self, path, fill if len(shards) > 2 else write)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "put", put_two)
        with pytest.raises(OutputError, match=r"No space left on device.*finished shards stay .*make room"):
            run(Letters(), rows(110), engine=RayEngine(workers=2), folder=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("shard-*"))) == 2
    assert not list((tmp_path / "run").glob(".*.part"))
    again = run(Letters(), rows(110), engine=RayEngine(workers=2), folder=tmp_path / "run")
    assert again.record.throughput["resumed_shards"] == 2
    assert same(again, run(Letters(), rows(110)))


@pytest.mark.parametrize("begun_on_ray", [False, True])
def test_run_begun_on_one_engine_is_finished_by_the_other(cluster, tmp_path, begun_on_ray):
    engines = [RayEngine(workers=1), None] if begun_on_ray else [None, RayEngine(workers=1)]
    whole = run(Letters(), rows(70), folder=tmp_path / "run", engine=engines[0])
    for shard in (1, 3):
        (tmp_path / "run" / f"shard-{shard:06d}.parquet").unlink()
    again = run(Letters(), rows(70), folder=tmp_path / "run", engine=engines[1])
    assert same(whole, again)
    assert again.record.throughput["resumed_shards"] == 2
    assert again.record.engines == {"local": 2, "ray": 2}


def test_mine_of_parquet_on_ray_keeps_the_same_rows(cluster, tmp_path, monkeypatch, capsys):
    data, out, log = tmp_path / "rows.parquet", tmp_path / "mined", tmp_path / "log.jsonl"
    rows(50).to_parquet(data)
    words = f"mine {data} --out {out} --top-k 20 --engine ray --workers 2 --log-json {log} --json"
    monkeypatch.setattr(sys, "argv", ["im-datasets", *words.split()])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert json.loads(capsys.readouterr().out)
    assert [event["files"] for event in events(log, "reading")] == [True]
    alone, there = select(score(load_source(data).dataset, progress=False).dataset, top_k=20), load_result(out)
    assert there.kept.to_pandas().equals(alone.kept.to_pandas())
    assert there.dropped.to_pandas().equals(alone.dropped.to_pandas())
    assert there.record.engines == {"ray": 3}


def test_hub_dataset_is_read_in_the_workers(cluster, hub, tmp_path, monkeypatch):
    for number, part in enumerate((range(30), range(30, 50))):
        rows(50).select(part).to_parquet(tmp_path / f"train-{number}.parquet")
    files = {f"data/{path.name}": path.read_bytes() for path in sorted(tmp_path.glob("*.parquet"))}
    hub.store.put("me/rows", files)
    source, log = load_source("me/rows"), tmp_path / "log.jsonl"
    hub.requests.clear()
    compare, reads = _Run._files, []

    def counted(self):
        files = compare(self)
        reads.append(len(hub.calls("GET", "train-1.parquet")))
        return files

    monkeypatch.setattr(_Run, "_files", counted)
    there = run(Letters(), source.dataset, files=source.parquet, engine=RayEngine(workers=2), log=log)
    assert same(there, run(Letters(), rows(50)))
    assert [event["files"] for event in events(log, "reading")] == [True]
    (by_the_driver,) = reads
    assert len(hub.calls("GET", "train-1.parquet")) > by_the_driver


class Watching(SimpleNamespace):
    """Keeps what it is told."""

    def noted(self, event, **facts):
        self.events.append((event, facts))


def a_run(tmp_path, *, files=(), shard_rows=20, own=False, nodes=(), sees=(), **engine):
    """A run on a cluster that is not there, of nodes with some cores each, of which some see the files."""
    import ray

    dataset = rows(100)
    scorer = ShardScorer((Letters(),), Columns(instruction="instruction", response="output"))
    shards = Shards(tmp_path, "", len(dataset), shard_rows)
    job = Job(dataset, scorer, shards, shards.missing(), files)
    run = _Run(RayEngine(**engine), job, Watching(events=[]), own)
    ask = SimpleNamespace(options=lambda label_selector: SimpleNamespace(remote=lambda _: label_selector[NODE]))
    run.ray = SimpleNamespace(
        nodes=lambda: [{"NodeID": name, "Alive": True, "Resources": {"CPU": cores}} for name, cores in nodes],
        remote=lambda **_: lambda _: ask,
        wait=lambda asked, num_returns, timeout: (asked[:num_returns], []),
        get=lambda name: name in sees,
        exceptions=ray.exceptions,
    )
    run._node, run._gpus = "a", 0
    return run


def test_local_files_are_read_where_they_were_seen_alone(tmp_path):
    from ray._private.label_utils import validate_label_selector

    rows(100).to_parquet(tmp_path / "rows.parquet")
    files, nodes = [str(tmp_path / "rows.parquet")], [("a", 1), ("b", 1), ("c", 1)]
    for sees, label in (("b", "in(a,b)"), ("bc", "in(a,b,c)"), ("", "in(a)")):
        found, where = a_run(tmp_path, files=files, shard_rows=25, nodes=nodes, sees=sees)._rows()
        assert isinstance(found, RowFiles)
        assert where == {NODE: label}
        assert validate_label_selector(where) is None
    assert a_run(tmp_path, nodes=nodes)._rows()[1] == {NODE: "a"}


@pytest.fixture
def second_node(cluster):
    """The id of another node, on this machine."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    with on_loopback():
        node = Node(
            RayParams(
                gcs_address=cluster.get_runtime_context().gcs_address,
                node_ip_address="127.0.0.1",
                num_cpus=1,
                num_gpus=0,
                object_store_memory=80 * 2**20,
                min_worker_port=0,
                max_worker_port=0,
                node_manager_port=0,
                include_log_monitor=False,
            ),
            head=False,
            shutdown_at_exit=False,
            spawn_reaper=False,
        )
    while not any(other["NodeID"] == node.node_id for other in cluster.nodes()):
        time.sleep(0.1)
    yield node.node_id
    node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def test_second_node_that_sees_the_files_reads_them(cluster, second_node, tmp_path):
    rows(100).to_parquet(tmp_path / "rows.parquet")
    run = a_run(tmp_path, files=[str(tmp_path / "rows.parquet")], shard_rows=25)
    run.ray, run._node = cluster, cluster.get_runtime_context().get_node_id()
    files, where = run._rows()
    assert where == {NODE: f"in({run._node},{second_node})"}

    def read(files):
        return cluster.get_runtime_context().get_node_id(), files.read(range(40, 60))

    there = cluster.remote(num_cpus=0)(read).options(label_selector={NODE: f"in({'0' * 56},{second_node})"})
    node, table = cluster.get(there.remote(files))
    assert node == second_node
    assert table.equals(run.job.source().read(range(40, 60)))


def test_hub_files_are_read_on_every_node(tmp_path, monkeypatch):
    run, files = a_run(tmp_path), RowFiles((RowFile("hf://datasets/me/rows/a.parquet", "", (100,)),), None)
    monkeypatch.setattr(run, "_files", lambda: files)
    assert run._rows() == (files, None)


def test_long_row_groups_are_read_by_the_driver(tmp_path):
    pq.write_table(rows(100).data.table, tmp_path / "rows.parquet")
    files = [str(tmp_path / "rows.parquet")]
    assert a_run(tmp_path, files=files, shard_rows=25)._files() is not None
    assert a_run(tmp_path, files=files, shard_rows=24)._files() is None


def test_files_that_cannot_be_compared_are_read_by_the_driver(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("output")

    monkeypatch.setattr(RowFiles, "open", broken)
    assert a_run(tmp_path, files=["rows.parquet"])._files() is None


def test_actor_that_no_node_can_hold_is_refused_or_waited_for(tmp_path):
    nodes = [("a", 2), ("b", 3)]
    with pytest.raises(EngineError, match="no node has 4 cores; pass fewer cpus="):
        a_run(tmp_path, own=True, nodes=nodes, cpus=4)._workers()
    run = a_run(tmp_path, nodes=nodes, cpus=4, workers=3)
    assert run._workers() == 3
    assert run.progress.events == [("waiting", {"cpus": 4, "gpus": 0})]
    assert a_run(tmp_path, own=True, nodes=nodes, cpus=2)._workers() == 2


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"cpus": 0}])
def test_no_workers_are_refused(wrong):
    with pytest.raises(EngineError, match="pass 1 or more of each"):
        RayEngine(**wrong)


def test_address_of_another_cluster_is_refused(cluster):
    here = cluster.get_runtime_context().gcs_address
    ray_cluster._check_connected(f"localhost:{here.rpartition(':')[2]}")
    for address in ("127.0.0.1:1", "local"):
        with pytest.raises(EngineError, match=rf"is connected to the Ray cluster at {here}, not {address}; pass that"):
            run(Letters(), rows(20), engine=RayEngine(address=address))
