"""The store: what was put is there, in any process, within its size; and it never breaks a run."""

import os
import sqlite3
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from im_datasets.models import value_store as store
from im_datasets.models.value_store import Store, current_store, using_store


def test_get_gives_what_was_put(tmp_path):
    kept = Store(tmp_path / "deep" / "scores.sqlite")
    assert kept.get([b"a"]) == {}
    entries = {str(i).encode(): bytes(i % 50) for i in range(1200)}
    kept.put(entries)
    kept.put({b"0": b"new"})
    assert kept.get([*entries, b"other"]) == entries | {b"0": b"new"}
    assert kept.get([]) == {}


def test_put_from_several_processes_at_once_loses_nothing(tmp_path):
    code = """
import sys
from copy import deepcopy
from im_datasets.models.value_store import Store
store = Store(sys.argv[1])
for i in range(40):
    store.put({f"{sys.argv[2]}-{i}".encode(): b"x" * 100})
"""
    path = tmp_path / "scores.sqlite"
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(path), str(n)]) for n in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    keys = [f"{n}-{i}".encode() for n in range(3) for i in range(40)]
    assert set(Store(path).get(keys)) == set(keys)


def test_put_forgets_what_was_unused_for_longest(tmp_path, monkeypatch):
    kept = Store(tmp_path / "scores.sqlite", max_bytes=200_000)
    day = 100
    monkeypatch.setattr(store, "_today", lambda: day)
    for day in range(100, 110):
        kept.put({f"{day}-{i}".encode(): bytes(400) for i in range(100)})
        kept.get([b"100-0"])  # used every day
    assert kept.path.stat().st_size < 400_000
    found = kept.get([b"100-0", b"100-1", b"109-50"])
    assert set(found) == {b"100-0", b"109-50"}


def test_put_gives_the_room_of_what_it_forgets_back_to_the_disk(tmp_path):
    path = tmp_path / "scores.sqlite"
    Store(path).put({f"{i}".encode(): bytes(400) for i in range(2000)})
    full = path.stat().st_size
    Store(path, max_bytes=200_000).put({b"key": b"value"})
    assert path.stat().st_size <= 200_000 < full


def test_a_store_that_is_no_database_is_a_warning(tmp_path):
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.warns(UserWarning, match=r"scores\.sqlite cannot be used .*set IM_DATASETS_CACHE to another folder"):
        assert Store(path).get([b"a"]) == {}
    with pytest.warns(UserWarning, match="cannot be used"):
        Store(path).put({b"a": b"b"})


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be used"):
        Store(tmp_path / "file" / "scores.sqlite").put({b"a": b"b"})


def test_an_interrupted_put_leaves_all_or_nothing(tmp_path):
    kept = Store(tmp_path / "scores.sqlite")
    kept.put({b"old": b"1"})
    with pytest.warns(UserWarning, match="cannot be used"):
        kept.put({b"new": b"2", b"bad": object()})  # type: ignore[dict-item]
    assert kept.get([b"old", b"new"]) == {b"old": b"1"}
    with sqlite3.connect(kept.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("off", ["off", "OFF", "0", "false"])
def test_current_store_is_off_by_the_variable(monkeypatch, off):
    monkeypatch.setenv("IM_DATASETS_STORE", off)
    assert current_store() is None


def test_current_store_lies_where_the_variable_says_or_in_the_hub_home(monkeypatch, tmp_path):
    monkeypatch.delenv("IM_DATASETS_STORE")
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    assert current_store().path == tmp_path / "scores.sqlite"
    monkeypatch.delenv("IM_DATASETS_CACHE")
    from huggingface_hub.constants import HF_HOME

    assert current_store().path == Path(HF_HOME) / "im_datasets" / "scores.sqlite"


def test_using_store_goes_before_the_variable_and_ends_with_its_block(monkeypatch, tmp_path):
    monkeypatch.delenv("IM_DATASETS_STORE")
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path / "a"))
    with using_store(tmp_path / "b"):
        assert current_store().path.parent == tmp_path / "b"
        with using_store(None):
            assert current_store() is None
    assert current_store().path.parent == tmp_path / "a"


def test_current_store_heeds_the_variable_after_a_map_of_several_processes(monkeypatch, tmp_path):
    # datasets puts a copy of os.environ in its place.
    monkeypatch.setattr(os, "environ", deepcopy(os.environ))
    monkeypatch.setenv("IM_DATASETS_STORE", "off")
    assert current_store() is None
    monkeypatch.delenv("IM_DATASETS_STORE")
    monkeypatch.setenv("IM_DATASETS_CACHE", str(tmp_path))
    assert current_store().path.parent == tmp_path
