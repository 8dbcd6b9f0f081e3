"""Files and folders appear whole or not at all; what cannot be written is told in one line."""

import os
import stat
import threading

import pytest

from im_datasets.common.errors import OutputError
from im_datasets.common.storage import check_file_writable, check_writable, output_errors, write_text, written_whole


def fill(aside, content):
    """Make a file of a text, or a folder of a dict."""
    if isinstance(content, str):
        aside.write_text(content)
        return
    aside.mkdir()
    for name, inner in content.items():
        fill(aside / name, inner)


def fill_and_fail(aside, content):
    fill(aside, content)
    raise KeyboardInterrupt


def read(path):
    return {inner.name: read(inner) for inner in path.iterdir()} if path.is_dir() else path.read_text()


def names(folder):
    return [path.name for path in folder.iterdir()]


KINDS = [("old", "new"), ({"a": "old", "gone": "x"}, {"a": "new", "deep": {"b": "c"}})]


@pytest.mark.parametrize(("old", "new"), KINDS)
def test_written_whole_makes_and_replaces_a_file_or_folder(tmp_path, old, new):
    place = tmp_path / "made" / "for it" / "result"
    for content in (old, new):
        with written_whole(place) as aside:
            fill(aside, content)
            assert aside.parent == place.parent
            assert not place.exists() or read(place) == old
        assert read(place) == content
        assert names(place.parent) == ["result"]


@pytest.mark.parametrize(("old", "new"), KINDS)
def test_written_whole_leaves_what_was_there_when_the_block_fails(tmp_path, old, new):
    place = tmp_path / "result"
    fill(place, old)
    with pytest.raises(KeyboardInterrupt), written_whole(place) as aside:
        fill_and_fail(aside, new)
    assert read(tmp_path) == {"result": old}


@pytest.mark.parametrize(("old", "new"), KINDS)
def test_written_whole_keeps_a_link_and_replaces_what_it_leads_to(tmp_path, old, new):
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere" / "result", old)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere" / "result")
    with written_whole(link) as aside:
        fill(aside, new)
    assert link.is_symlink()
    assert read(tmp_path / "elsewhere") == {"result": new}


def test_written_whole_gives_the_modes_of_any_new_file_and_folder(tmp_path):
    for name, content, mode in (("file", "x", 0o666), ("folder", {}, 0o777)):
        with written_whole(tmp_path / name) as aside:
            fill(aside, content)
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode & ~umask


@pytest.mark.parametrize("content", ["x", {"a": "x", "deep": {"b": "y"}}])
def test_written_whole_flushes_every_file_before_the_name_is_taken(tmp_path, monkeypatch, content):
    place, flushed = tmp_path / "result", []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((number, place.exists())))
    with written_whole(place) as aside:
        fill(aside, content)
    assert [there for _, there in flushed] == [False] * (1 if content == "x" else 2)


def test_written_whole_of_a_disk_that_fills_late_leaves_nothing(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), written_whole(tmp_path / "result") as aside:
        fill(aside, {"a": "x"})
    assert not names(tmp_path)


def test_written_whole_by_many_at_once_leaves_one_of_them_whole(tmp_path):
    place, texts = tmp_path / "result", [str(number) * 1000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(place, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.read_text() in texts
    assert names(tmp_path) == ["result"]


def test_write_text_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    target = write_text(tmp_path / "folder" / "page.html", "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(target, "new")
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]
    assert target.read_text() == "old"


def test_output_errors_tells_target_cause_and_remedy():
    told = r"^cannot write a/b: No space left; pass another disk$"
    with pytest.raises(OutputError, match=told), output_errors("a/b", "pass another disk"):
        raise OSError(28, "No space left")
    told = r"^cannot write a: odd; make room for it, or pass another folder$"
    with pytest.raises(OutputError, match=told), output_errors("a"):
        raise OSError("odd")


def test_checks_leave_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_file_writable(tmp_path / "a" / "b.parquet")
    assert not names(tmp_path)


def test_checks_tell_a_file_from_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file; pass a folder"):
        check_writable(tmp_path / "file")
    with pytest.raises(OutputError, match="is a folder; pass the name of a file"):
        check_file_writable(tmp_path)
