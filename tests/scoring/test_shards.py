"""Shards: whole or absent, never trusted when broken."""

import errno
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_datasets.common.errors import OutputError
from im_datasets.models.meter import Meter
from im_datasets.scoring import shards as module
from im_datasets.scoring.run_folder import open_shards
from im_datasets.scoring.shards import ScoredShard, ShardMeter, Shards, WholeColumn

REQUEST = {"source": {"fingerprint": "a"}, "rule": "embedded"}


def scored(shards: Shards, shard: int) -> ScoredShard:
    span = shards.span(shard)
    table = pa.table({"a": np.arange(span.start, span.stop, dtype=float), "im_unscorable": [""] * len(span)})
    vectors = np.full((len(span), 3), shard, dtype=np.float32)
    return ScoredShard(table, {"im_knn_6": vectors}, ShardMeter({"read": Meter(seconds=1.5, tokens=7)}, workers=2))


@pytest.fixture
def opened(tmp_path):
    with open_shards(tmp_path / "run", REQUEST, 25, shard_rows=10) as shards:
        yield shards


def test_span_covers_every_row_once(opened):
    assert len(opened) == 3
    assert [row for shard in range(3) for row in opened.span(shard)] == list(range(25))


def test_write_and_read_give_the_same(opened):
    assert opened.missing() == [0, 1, 2]
    opened.write(2, scored(opened, 2))
    opened.write(0, scored(opened, 0))
    assert opened.missing() == [1]
    assert opened.read(2).to_pydict() == scored(opened, 2).table.to_pydict()
    assert opened.meter(2) == ShardMeter({"read": Meter(seconds=1.5, tokens=7)}, workers=2)
    opened.write(1, scored(opened, 1))
    vectors = [np.load(path) for path in opened.vectors("im_knn_6")]
    assert np.concatenate(vectors)[:, 0].tolist() == [0.0] * 10 + [1.0] * 10 + [2.0] * 5


MANY = """
import resource, sys
from pathlib import Path
import numpy as np
from im_datasets.indicators.knn.vectors import Matrix
from im_datasets.scoring.shards import Shards

shards = Shards(Path(sys.argv[1]), "", 200, 1)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
matrix = Matrix.of(shards.vectors("im_knn_6"))
rows = np.arange(len(matrix))
blocks = np.concatenate([block for _, block in matrix.blocks()])
print(matrix.whole()[:, 0].tolist() == matrix.take(rows)[:, 0].tolist() == blocks[:, 0].tolist() == rows.tolist())
"""


def test_vectors_of_more_shards_than_files_may_be_open(tmp_path):
    shards = Shards(tmp_path, "", 200, 1)
    for shard in range(200):
        np.save(shards.vectors_path(shard, "im_knn_6"), np.full((1, 2), shard, dtype=np.float16))
    command = [sys.executable, "-c", MANY, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_vectors_leave_out_a_shard_that_has_none(opened):
    for shard in range(3):
        np.save(opened.vectors_path(shard, "im_knn_6"), np.ones((shard % 2, 3), dtype=np.float32))
    assert opened.vectors("im_knn_6") == [opened.vectors_path(1, "im_knn_6")]


def test_write_refuses_another_number_of_rows(opened):
    with pytest.raises(OutputError, match="has 5 rows, not 10"):
        opened.write(0, scored(opened, 2))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path, share: float = 0.7) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    path.write_bytes(content)


def _other_digest(path: Path) -> None:
    table = pq.read_table(path)
    facts = json.dumps(json.loads(table.schema.metadata[b"im_datasets"]) | {"digest": "other"}).encode()
    metadata = {b"im_datasets": facts, b"im_datasets.sum": str(zlib.crc32(facts)).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1.0]}), path)


@pytest.mark.parametrize("harm", [_truncate, _other_digest, _foreign, lambda path: path.write_bytes(b"")])
def test_missing_counts_a_broken_or_foreign_shard(opened, harm):
    for shard in range(3):
        opened.write(shard, scored(opened, shard))
    harm(opened.table_path(1))
    assert opened.missing() == [1]
    with pytest.raises(OutputError, match=r"shard-000001.parquet .*remove it and run the same again"):
        opened.read(1)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 40))
def test_read_gives_the_true_values_or_an_error_whichever_byte_is_wrong(opened, share):
    opened.write(0, scored(opened, 0))
    _flip(opened.table_path(0), share)
    if 0 not in opened.missing():
        assert opened.read(0).to_pydict() == scored(opened, 0).table.to_pydict()
        assert opened.meter(0) == scored(opened, 0).meter


@pytest.mark.parametrize("harm", [_truncate, _flip, Path.unlink])
def test_missing_counts_a_shard_with_broken_vectors(opened, harm):
    opened.write(0, scored(opened, 0))
    harm(opened.vectors_path(0, "im_knn_6"))
    assert opened.missing() == [0, 1, 2]


def test_column_is_kept_and_a_broken_one_is_not_read(opened):
    values = np.linspace(0, 1, 25)
    values[3] = np.nan
    assert opened.read_column("im_knn_6") is None
    opened.write_column("im_knn_6", WholeColumn(values, {"method": "exact"}))
    kept = opened.read_column("im_knn_6")
    assert (kept.values.tobytes(), kept.facts) == (values.tobytes(), {"method": "exact"})
    for share in (0.1, 0.5, 0.9):
        opened.write_column("im_knn_6", WholeColumn(values, {}))
        _flip(opened.folder / "column-im_knn_6.parquet", share)
        read = opened.read_column("im_knn_6")
        assert read is None or read.values.tobytes() == values.tobytes()
    _truncate(opened.folder / "column-im_knn_6.parquet")
    assert opened.read_column("im_knn_6") is None


def test_write_to_a_full_disk_is_one_clear_error_and_leaves_finished_shards(opened, monkeypatch):
    opened.write(0, scored(opened, 0))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.pq, "write_table", full)
    with pytest.raises(OutputError, match=r"No space left on device.*finished shards stay .*make room"):
        opened.write(1, scored(opened, 1))
    monkeypatch.undo()
    assert opened.missing() == [1, 2]
    assert not list(opened.folder.glob(".*.part"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(shards):
    for shard in range(len(shards)):
        shards.write(shard, scored(shards, shard))


def test_write_to_a_disk_that_is_really_full(small_disk):
    with open_shards(small_disk / "run", REQUEST, 20_000, shard_rows=1000) as shards:
        with pytest.raises(OutputError, match="No space left on device"):
            fill(shards)
        assert 0 < len(shards.missing()) < 20
        assert not list(shards.folder.glob(".*.part"))
