"""One commit or none, on branches and pull requests, whatever fails on the way."""

import pytest
from datasets import load_dataset
from hub_server import PullRequestOnly
from pushing import REPO, commits, make_other, push

from im_datasets import load_selection
from im_datasets.common.errors import ConflictError, HubError
from im_datasets.hub import client as hub_errors
from im_datasets.hub.plan import Plan
from im_datasets.hub.repository import Repository
from im_datasets.report.configs import Published

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_push_private_and_named_by_its_name_alone(hub, selection):
    assert push(selection, "best", private=True).repo_id == REPO
    assert hub.store.repos["dataset", REPO].private


def test_push_to_a_branch_makes_it_and_leaves_main_alone(hub, selection):
    hub.store.create("dataset", REPO)
    pushed = push(selection, revision="v2")
    assert pushed.revision == "v2"
    assert hub.store.paths(REPO) == [".gitattributes"]
    assert load_dataset(REPO, revision="v2", split="train").to_list() == selection.kept.to_list()


def test_push_to_a_new_branch_that_needs_no_commit_makes_it(hub, selection):
    push(selection)
    first = push(selection, revision="dev")
    refs = hub.store.repos["dataset", REPO].refs
    refs["main"] = refs.pop("dev")  # merged, and the branch deleted
    planned = push(selection, revision="dev", dry_run=True)
    assert (planned.changed, planned.new_branch) == (True, True)
    assert "dev" not in hub.store.repos["dataset", REPO].refs
    pushed = push(selection, revision="dev")
    assert (pushed.changed, pushed.new_branch, pushed.commit) == (True, True, first.commit)
    assert hub.store.repos["dataset", REPO].refs["dev"] == first.commit
    assert load_dataset(REPO, revision="dev", split="train").to_list() == selection.kept.to_list()
    again = push(selection, revision="dev")
    assert (again.changed, again.new_branch) == (False, False)


def test_push_again_makes_no_commit(hub, selection):
    first = push(selection)
    uploads = len(hub.calls("PUT"))
    again = push(selection)
    assert not again.changed
    assert again.commit == first.commit
    assert len(commits(hub)) == 2
    assert len(hub.calls("PUT")) == uploads


def test_push_is_done_when_the_same_selection_landed_meanwhile(hub, selection):
    hub.store.create("dataset", REPO)
    hub.fail("POST", "/commit/", before=lambda: push(selection))
    assert not push(selection).changed
    assert len(commits(hub)) == 2


def test_push_whose_files_were_all_committed_by_another_changed_nothing(hub, selection):
    """The other commit lands after this push has read the repository: the client then sends none."""
    hub.store.create("dataset", REPO)
    hub.fail("POST", "/api/validate-yaml", before=lambda: push(selection))
    assert not push(selection).changed
    assert len(commits(hub)) == 2


@pytest.mark.parametrize("status", [409, 412])
def test_push_tries_again_when_the_commit_is_refused_as_outdated(hub, selection, waits, status):
    hub.fail("POST", "/commit/", status=status)
    assert push(selection).changed
    assert len(hub.calls("POST", "/commit/")) == 2


def test_push_gives_up_when_it_is_always_outdated(hub, selection, waits):
    hub.fail("POST", "/commit/", status=412, times=99)
    with pytest.raises(HubError, match="412"):
        push(selection)
    assert len(hub.calls("POST", "/commit/")) == hub_errors.ATTEMPTS
    assert hub.store.paths(REPO) == [".gitattributes"]


def test_push_survives_a_dropped_connection(hub, selection, waits):
    hub.fail("POST", "/commit/", drop=True)
    push(selection)
    assert len(commits(hub)) == 2


def test_push_whose_answer_was_lost_is_not_made_twice(hub, selection, waits):
    hub.fail("POST", "/commit/", drop=True, done=True)
    pushed = push(selection)
    assert pushed.commit == hub.store.repos["dataset", REPO].refs["main"]
    assert pushed.changed
    assert len(commits(hub)) == 2


def test_pull_request_whose_answer_was_lost_is_not_opened_twice(hub, selection, waits):
    hub.store.create("dataset", REPO)
    hub.fail("POST", "/commit/", status=502, done=True)
    pushed = push(selection, create_pr=True)
    assert pushed.pull_request.endswith("/discussions/1")
    assert pushed.changed
    assert len(hub.store.repos["dataset", REPO].pull_requests) == 1


def test_push_that_dies_midway_leaves_the_repository_and_goes_on_later(hub, selection, waits):
    push(selection)
    before = hub.store.repos["dataset", REPO].refs["main"]
    hub.fail("POST", "/commit/", status=500, times=99)
    with pytest.raises(HubError, match="500"):
        push(make_other(selection))
    assert hub.store.repos["dataset", REPO].refs["main"] == before
    hub.faults.clear()
    uploads = len(hub.calls("PUT"))
    assert push(make_other(selection)).changed
    assert len(hub.calls("PUT")) == uploads


@pytest.mark.parametrize("how", [{"status": 503}, {"drop": True}])
def test_push_tries_again_when_the_card_cannot_be_validated(hub, selection, waits, how):
    hub.fail("POST", "/api/validate-yaml", **how)
    assert push(selection).changed


REQUESTS = [
    ("GET", "/whoami-v2", {}),
    ("GET", "/revision/main", {}),
    ("GET", "/tree/", {}),
    ("HEAD", "/resolve/", {}),
    ("GET", "/resolve/", {}),
    ("POST", "/repos/create", {"repo": "fresh"}),
    ("POST", "/branch/", {"revision": "dev"}),
    ("GET", "/discussions", {"create_pr": True}),
]


@pytest.mark.parametrize("how", [{"status": 500}, {"status": 503}, {"status": 429}, {"drop": True}], ids=str)
@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_push_tries_every_request_again(hub, selection, waits, tmp_path, monkeypatch, method, path, options, how):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    push(make_other(selection))
    fault = hub.fail(method, path, **how)
    assert push(selection, **{"repo": "best", **options}).changed
    assert fault.times == 0


def test_push_tries_an_upload_again(hub, selection, waits):
    hub.fail("PUT", "/storage/", status=503, times=2)
    push(selection)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_offline_says_so(selection):
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push(selection)


def test_a_token_for_pull_requests_opens_one(hub, selection, monkeypatch):
    hub.store.create("dataset", REPO)
    monkeypatch.setenv("HF_TOKEN", hub.login("me", PullRequestOnly))
    with pytest.raises(HubError, match="open a pull request: create_pr=True"):
        push(selection)
    assert push(selection, create_pr=True).pull_request


def test_push_into_a_slow_hub_waits(hub, selection):
    hub.fail("POST", "/commit/", delay=0.3)
    assert push(selection).changed


def test_push_goes_through_xet_where_the_client_has_it(hub, selection, monkeypatch, tmp_path):
    """As the client does by default: what is uploaded and downloaded passes its own Xet library."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.store.xet_folder = tmp_path / "xet"
    push(selection, "me/xet")  # a name of its own: no file of it is in the cache
    assert hub.calls("PUT") == []
    assert hub.calls("GET", "/xet-write-token/")
    assert load_dataset("me/xet", split="train").to_list() == selection.kept.to_list()
    assert hub.calls("GET", "/xet-read-token/")
    assert not push(selection, "me/xet").changed


def test_pull_request_leaves_main_alone(hub, selection):
    hub.store.create("dataset", REPO)
    pushed = push(selection, create_pr=True)
    assert pushed.revision == "refs/pr/1"
    assert hub.store.paths(REPO) == [".gitattributes"]
    assert load_dataset(REPO, revision="refs/pr/1", split="train").to_list() == selection.kept.to_list()
    assert load_selection(REPO, "refs/pr/1").cut == selection.cut


def test_unchanged_selection_opens_no_pull_request_and_writes_nothing_to_main(hub, selection):
    push(selection)
    pushed = push(selection, create_pr=True)
    assert (pushed.changed, pushed.pull_request) == (False, None)
    assert len(commits(hub)) == 2
    assert hub.store.repos["dataset", REPO].pull_requests == []


def test_same_pull_request_is_not_opened_twice(hub, selection):
    hub.store.create("dataset", REPO)
    first = push(selection, create_pr=True)
    again = push(selection, create_pr=True)
    assert again.pull_request == first.pull_request
    assert not again.changed
    assert len(hub.store.repos["dataset", REPO].pull_requests) == 1


def test_push_into_a_pull_request_adds_to_it(hub, selection):
    hub.store.create("dataset", REPO)
    first = push(selection, create_pr=True)
    push(make_other(selection), revision=first.revision)
    assert len(hub.store.repos["dataset", REPO].pull_requests) == 1
    assert len(load_dataset(REPO, revision="refs/pr/1", split="train")) == 5


def test_publish_makes_a_space_once_and_says_what_became_of_it(hub, waits):
    repository = Repository.of("me/page", "space")

    def publish(content, **options):
        return repository.publish(lambda snapshot: Plan.between(snapshot, {"a": content}), "ours", **options)

    planned = publish(b"1", dry_run=True)
    assert (planned.sha, planned.is_ours) == (None, True)
    assert hub.store.repos == {}
    hub.fail("POST", "/commit/", drop=True, done=True)
    first = publish(b"1")
    assert (first.is_ours, first.new_repository) == (True, True)
    again = publish(b"1")
    assert (again.sha, again.is_ours, again.new_repository) == (first.sha, False, False)
    assert publish(b"2").is_ours
    assert len(hub.store.repos["space", "me/page"].history("main")) == 3


def test_publish_leaves_what_somebody_else_changed_meanwhile(hub):
    repository = Repository.of("me/page", "space")
    repository.publish(lambda snapshot: Plan.between(snapshot, {"a": b"1"}), "ours")
    hub.fail("POST", "/commit/", before=lambda: hub.store.put("me/page", {"a": b"theirs"}, kind="space"))
    with pytest.raises(ConflictError, match="somebody else changed a while this push was under way"):
        repository.publish(lambda snapshot: Plan.between(snapshot, {"a": b"2"}), "ours")
    assert hub.store.read("me/page", "a", kind="space") == b"theirs"


def test_oids_of_a_title_are_those_that_its_last_commit_left(hub):
    repository = Repository.of("me/page", "space")

    def oids():
        return repository.oids_of("ours", repository.read().sha)

    hub.store.create("space", "me/page")
    assert oids() is None
    hub.store.put("me/page", {"a": b"1"}, kind="space")
    assert oids() == {}
    repository.publish(lambda snapshot: Plan.between(snapshot, {"a": b"2"}), "ours")
    hub.store.put("me/page", {"a": b"3"}, kind="space")
    assert oids()["a"] == Published.of(b"2").git_sha1
