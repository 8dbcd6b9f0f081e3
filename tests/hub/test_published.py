"""A published selection is read back."""

import shutil

import pytest
from pushing import REPO, push, same
from verifying import FAILED, NOT_CHECKED, told

from im_datasets import load_selection, verify
from im_datasets.common.errors import HubError

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_load_selection_gives_back_what_was_pushed(hub, selection):
    push(selection, include_dropped=True)
    back = load_selection(REPO)
    assert back.kept.to_list() == selection.kept.to_list()
    assert same(back.dropped, selection.dropped)
    assert (back.cut, back.reasons, back.settings) == (selection.cut, selection.reasons, selection.settings)
    assert back.record == selection.record


def test_load_selection_puts_scores_beside_original_columns(hub, selection):
    push(selection, columns="original", include_scores=True)
    back = load_selection(REPO)
    assert back.kept.select_columns(selection.kept.column_names).to_list() == selection.kept.to_list()
    assert back.dropped["im_reason"][:] == selection.dropped["im_reason"][:]


def test_load_selection_refuses_other_repositories(hub):
    hub.store.put("me/other", {"README.md": b"# Other\n"})
    with pytest.raises(HubError, match="so it is no selection"):
        load_selection("me/other")
    with pytest.raises(HubError, match="me/none: it is not there, or this token may not see it"):
        load_selection("me/none")


def test_load_selection_says_when_the_hub_is_out_of_reach(hub, monkeypatch, waits):
    hub.fail("GET", "/revision/|/api/", drop=True, times=99)
    with pytest.raises(HubError, match="is not in the local cache, and the Hub cannot be reached"):
        load_selection("me/unreachable")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="is not in the local cache, and the Hub cannot be reached"):
        load_selection("me/unreachable")


@pytest.mark.parametrize("how", [{"status": 500}, {"drop": True}], ids=str)
def test_load_selection_tries_again(hub, selection, waits, tmp_path, monkeypatch, how):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    push(selection)
    for path in tmp_path.glob("*"):
        shutil.rmtree(path)
    hub.fail("HEAD", "/resolve/", **how)
    hub.fail("GET", "/resolve/", **how)
    assert load_selection(REPO).cut == selection.cut
    assert hub.faults[-1].times == 0


def test_verify_says_that_it_read_the_local_cache(hub, pushed, waits):
    assert NOT_CHECKED not in {check.outcome for check in verify(REPO, sample=1).checks if check.name == "commit"}
    hub.fail("GET", "/revision/|/api/datasets", drop=True, times=99)
    pushed(lambda front: front.update(license="mit"))
    verification = verify(REPO, sample=0)
    assert verification.ok
    assert "the Hub cannot be reached, so this is the copy of it in the local cache" in told(verification, NOT_CHECKED)


def test_verify_reads_the_commit_of_now(hub, pushed):
    assert verify(REPO, sample=0).ok
    pushed(lambda front: front.update(license="mit"))
    verification = verify(REPO, sample=0)
    assert verification.commit == hub.store.repos["dataset", REPO].refs["main"]
    assert "license in the front matter is mit, pushed was cc0-1.0" in told(verification, FAILED)


def test_verify_refuses_what_is_no_selection(tmp_path, hub):
    with pytest.raises(HubError, match=r"holds neither instructmining\.json nor record\.json"):
        verify(tmp_path)
    with pytest.raises(HubError, match="no folder /nowhere"):
        verify("/nowhere")
    (tmp_path / "instructmining.json").write_text("{}")
    with pytest.raises(HubError, match="is not one of im-datasets"):
        verify(tmp_path)
    (tmp_path / "instructmining.json").write_text('{"schema_version": 9}')
    with pytest.raises(HubError, match="has schema version 9; known: 1"):
        verify(tmp_path)
