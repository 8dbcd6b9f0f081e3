"""A published selection is read back."""

import shutil

import pytest
from pushing import REPO, push, same

from im_datasets import load_selection
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
