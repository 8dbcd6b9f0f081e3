"""Files and folders appear whole or not at all; what cannot be written is told in one line."""

import os
import signal
import stat
import tempfile
import threading
from contextlib import suppress

import pytest

from im_datasets.common import storage
from im_datasets.common.errors import OutputError
from im_datasets.common.storage import (
    check_file_writable,
    check_writable,
    clear_killed,
    output_errors,
    remove_whole,
    temporary_folder,
    write_text,
    written_whole,
)


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
            assert aside.parent.parent == place.parent
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
    # Again and again: each looks for what killed ones left, while others have just made theirs.
    for _ in range(40):
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


def killed(work, monkeypatch, steps=()):
    """Do some work in a process of its own, which SIGKILL ends before the first of some steps, or at its end."""
    child = os.fork()
    if not child:
        try:
            for step in steps:
                monkeypatch.setattr(step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def write(place, content):
    with written_whole(place) as aside:
        fill(aside, content)


STEPS = {
    "the lock": ["fcntl.flock"],
    "the flush": ["os.fsync"],
    "the name": ["pathlib.Path.replace", "im_datasets.common.storage._exchange"],
    "the removal": ["shutil.rmtree"],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize(("old", "new"), KINDS)
@pytest.mark.parametrize("follow_up", [check_writable, check_file_writable, "write"])
def test_what_a_kill_leaves_is_gone_after_the_next_call(tmp_path, monkeypatch, old, new, steps, follow_up):
    place = tmp_path / "result"
    fill(place, old)
    with monkeypatch.context() as patched:
        killed(lambda: write(place, new), patched, steps)
    assert read(place) in (old, new)
    assert len(names(tmp_path)) == 2
    if follow_up == "write":
        write(place, new)
        assert read(place) == new
    else:
        with suppress(OutputError):  # one of them wants a file, one a folder
            follow_up(place)
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("end", ["kill", "error"])
def test_a_folder_stopped_between_two_names_takes_its_place(tmp_path, monkeypatch, end):
    place, rename, renamed = tmp_path / "result", os.rename, []
    fill(place, {"a": "old"})

    def stop_at_the_second(*names):
        renamed.append(names)
        if len(renamed) == 2:
            if end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(5, "Input/output error")
        rename(*names)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "_exchange", lambda *_: False)  # as on a disk that cannot
        patched.setattr(os, "rename", stop_at_the_second)
        if end == "kill":
            killed(lambda: write(place, {"a": "new"}), patched)
        else:
            with pytest.raises(OSError, match="Input/output"):
                write(place, {"a": "new"})
    if end == "kill":
        assert not place.exists()
        clear_killed(place)
    assert read(place) == {"a": "new"}
    assert names(tmp_path) == ["result"]


def test_what_a_kill_left_where_the_folder_was_missing_is_found(tmp_path, monkeypatch):
    place = tmp_path / "made" / "for it" / "result"
    with monkeypatch.context() as patched:
        killed(lambda: check_writable(place), patched, STEPS["the removal"])
    assert len(names(tmp_path)) == 1
    check_writable(place)
    assert not names(tmp_path)


def test_clear_killed_leaves_live_work_and_what_is_not_ours(tmp_path):
    place = tmp_path / "result"
    users = [
        ".result.part",
        ".result.0123abcd.part",
        ".result.0123abcd.old",
        ".result.89abcdef.part",
        ".other.01234567.part",
    ]
    (tmp_path / users[0]).mkdir()
    (tmp_path / users[1]).write_text("a file")
    (tmp_path / users[2]).mkdir()
    fill(tmp_path / users[3], {"lock": "", "new": "x", "thesis.tex": "years of work"})
    fill(tmp_path / users[4], {"lock": "", "new": "x"})
    (tmp_path / ".result.fedcba98.part").symlink_to(tmp_path / users[4])
    before = read(tmp_path)
    with written_whole(place) as aside:
        fill(aside, "new")
        clear_killed(place)
        assert read(aside) == "new"
        with written_whole(place) as other:
            fill(other, "newer")
    assert read(tmp_path) == before | {"result": "new"}


def test_written_whole_waits_for_no_lock_where_the_disk_has_none(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    work = tmp_path / ".result.0123abcd.part"
    fill(work, {"lock": "", "new": "perhaps of a live run"})
    write(tmp_path / "result", "new")
    assert read(tmp_path / "result") == "new"
    assert sorted(names(tmp_path)) == [work.name, "result"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_remove_whole_removes_at_one_stroke(tmp_path, monkeypatch, is_killed):
    fill(tmp_path / "folder", {"a": "x", "deep": {"b": "y"}})
    if is_killed:
        with monkeypatch.context() as patched:
            killed(lambda: remove_whole(tmp_path / "folder"), patched, STEPS["the removal"])
        assert len(names(tmp_path)) == 1
        clear_killed(tmp_path / "folder")
    else:
        remove_whole(tmp_path / "folder")
    assert not names(tmp_path)


def test_temporary_folder_removes_its_own_and_those_of_the_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def leave():
        with temporary_folder() as folder:
            fill(folder / "big", "x")
            os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(3):
        killed(leave, monkeypatch)
        assert len(names(tmp_path)) == 1
    with temporary_folder() as folder, temporary_folder() as other:
        assert folder.is_dir()
        assert other.is_dir()
        assert len(names(tmp_path)) == 2
    assert not names(tmp_path)
