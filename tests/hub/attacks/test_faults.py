"""Every failure at every request: verify never takes one for a false claim, push leaves the old or the new commit.

The rows of the tables are the requests; the columns are what happens to each of them, again and again.
"""

import json
import re
from contextlib import contextmanager

import pytest
from pushing import make_other, push
from verifying import FAILED, REPO, told

from im_datasets import verify
from im_datasets.common.errors import HubError

HOW = {
    "401": {"status": 401},
    "403": {"status": 403},
    "404": {"status": 404},
    "404, as a missing file": {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}},
    "500": {"status": 500},
    "broken off": {"drop": True},
}


@pytest.fixture
def no_waits(monkeypatch):
    """Clients wait for no server that will not come back."""
    monkeypatch.setattr("time.sleep", lambda _: None)


@contextmanager
def one_line():
    """Refusing is allowed, in one line."""
    try:
        yield
    except HubError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(error) from error


READ = [
    ("GET", r"/api/datasets/me/best"),
    ("HEAD", r"/resolve/.*instructmining"),
    ("GET", r"/resolve/.*instructmining"),
    ("HEAD", r"/resolve/.*README"),
    ("GET", r"/resolve/.*README"),
    ("HEAD", r"/resolve/.*kept/"),
    ("GET", r"/resolve/.*kept/"),
    ("GET", r"/storage/"),
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("method", "path"), READ, ids=lambda value: value)
def test_a_request_that_fails_is_no_claim_that_does_not_hold(
    hub, copies, no_waits, tmp_path, monkeypatch, method, path, how
):
    hub.store.put(REPO, {path: file.content for path, file in copies(hub, include_dropped=True).items()})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.fail(method, path, **HOW[how], times=999)
    with one_line():
        assert told(verify(REPO, sample=0), FAILED) == ""


def test_the_table_names_every_request_of_verify(hub, copies, tmp_path, monkeypatch):
    hub.store.put(REPO, {path: file.content for path, file in copies(hub, include_dropped=True).items()})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.requests.clear()
    assert verify(REPO, sample=9).ok
    other = r"/resolve/.*(dropped|figures|scores)/"
    for request in hub.requests:
        kinds = [path for method, path in READ if method == request.method and re.search(path, request.path)]
        assert kinds or re.search(other, request.path), request.path


WRITE = [
    ("GET", "/whoami-v2"),
    ("GET", "/revision/"),
    ("GET", "/tree/"),
    ("HEAD", "/resolve/"),
    ("GET", "/resolve/"),
    ("POST", "/repos/create"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/preupload/"),
    ("POST", "/info/lfs/objects/batch"),
    ("PUT", "/storage/"),
    ("POST", "/commit/"),
]


@pytest.mark.parametrize("how", ["401", "403", "broken off", "done, and the answer lost"])
@pytest.mark.parametrize(("method", "path"), WRITE, ids=lambda value: value)
def test_a_push_that_fails_leaves_the_old_or_the_new_commit_and_can_be_done_again(
    hub, selection, quick_figures, no_waits, tmp_path, monkeypatch, method, path, how
):
    def state():
        return json.loads(hub.store.read(REPO, "instructmining.json"))["selection"]["kept"]

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    push(selection)
    old, other = state(), make_other(selection)
    hub.fail(method, path, **HOW.get(how, {"status": 500, "done": True}), times=999)
    with one_line():
        push(other)
    repository = hub.store.repos["dataset", REPO]
    files = set(repository.commit_at("main").files)
    claims = json.loads(hub.store.read(REPO, "instructmining.json"))
    assert set(claims["files"]) <= files
    assert claims["selection"]["kept"] in {old, len(other.kept)}
    hub.faults.clear()
    push(other)
    assert state() == len(other.kept)
    assert not push(other).changed
