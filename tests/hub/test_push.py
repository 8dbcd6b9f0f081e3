"""Pushing with the real client to a Hub on this machine: one commit or none, nobody's work lost, no token told."""

import json
import logging
import re
import shutil
import traceback
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from datasets import Dataset, concatenate_datasets, load_dataset
from hub_server import READ, PullRequestOnly
from huggingface_hub import DatasetCard
from report_sample import make_record, make_selection

from im_datasets import load_selection, push_selected
from im_datasets.common.errors import ConflictError, HubError
from im_datasets.common.storage import write_bytes
from im_datasets.hub import client as hub_errors
from im_datasets.hub import push as hub_module
from im_datasets.hub.checks import FAILED
from im_datasets.hub.push import SecretsWarning
from im_datasets.hub.verify import verify
from im_datasets.report.card import FIGURE, PANELS, find_blocks

REPO = "me/best"
GIVEN = {"license": "cc-by-4.0", "language": "en"}
FILES = [
    ".gitattributes",
    "README.md",
    "figures/indicators.png",
    "figures/score_distribution.png",
    "instructmining.json",
    "kept/train-00000-of-00001.parquet",
]


@pytest.fixture
def waits(monkeypatch):
    """Seconds waited, by us and by the client, without waiting."""
    waited = []
    monkeypatch.setattr(hub_errors, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    """Drawing takes a second; what is drawn is for the tests of the card."""

    def write(selection, folder):
        for path in (FIGURE, PANELS):
            write_bytes(folder / path, f"{path} of {len(selection.kept)} rows".encode())
        return [FIGURE, PANELS]

    monkeypatch.setattr("im_datasets.hub.publication.write_figures", write)


@pytest.fixture(scope="module")
def selection():
    return replace(make_selection(), record=make_record())


def push(selection, repo=REPO, **options):
    return push_selected(selection, repo, **GIVEN, **options)


def same(left, right):
    """NaN equals NaN here."""
    return repr(left.to_list()) == repr(right.to_list())


def commits(hub, branch="main", repo=REPO):
    return [commit.title for commit in hub.store.repos["dataset", repo].history(branch)]


def card_of(hub, revision="main"):
    return hub.store.read(REPO, "README.md", revision=revision).decode()


def front_matter(card):
    return DatasetCard(card).data.to_dict()


# One call, one commit


def test_push_makes_one_commit_that_load_dataset_opens(hub, selection):
    pushed = push(selection)
    assert commits(hub) == ["8 rows selected by im-datasets", "initial commit"]
    assert hub.store.paths(REPO) == FILES
    assert pushed.commit == hub.store.repos["dataset", REPO].refs["main"]
    rows = load_dataset(REPO, split="train")
    assert rows.features == selection.kept.features
    assert rows.to_list() == selection.kept.to_list()
    assert list(load_dataset(REPO, split="train", streaming=True)) == rows.to_list()


def test_push_publishes_the_record_with_checksums(hub, selection):
    push(selection)
    told = json.loads(hub.store.read(REPO, "instructmining.json"))
    assert told["record"] == json.loads(json.dumps(make_record().to_dict()))
    assert told["selection"]["cut"] == selection.cut
    files = hub.store.repos["dataset", REPO].commit_at("main").files
    assert {path: file["sha256"] for path, file in told["files"].items()} == {
        path: files[path].sha256 for path in FILES if path not in {".gitattributes", "README.md", "instructmining.json"}
    }


def test_push_with_dropped_and_scores_makes_their_configs(hub, selection):
    push(selection, include_dropped=True, include_scores=True)
    assert same(load_dataset(REPO, "dropped", split="train"), selection.dropped)
    scores = load_dataset(REPO, "scores", split="train")
    assert len(scores) == 24
    assert not {"instruction", "output"} & set(scores.column_names)
    assert scores.filter(lambda row: row["im_kept"])["im_row"][:] == selection.kept["im_row"][:]
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_of_scores_only_holds_no_text(hub, selection):
    push(selection, scores_only=True)
    assert load_dataset(REPO, split="train").column_names[:3] == ["im_row", "im_rank", "im_kept"]
    everything = b"".join(file.content for file in hub.store.repos["dataset", REPO].commit_at("main").files.values())
    assert b"Describe thing" not in everything


def test_push_of_original_columns_leaves_ours_out(hub, selection):
    push(selection, columns="original", include_dropped=True)
    assert load_dataset(REPO, split="train").column_names == ["instruction", "output"]
    assert load_dataset(REPO, "dropped", split="train").column_names == ["instruction", "output"]


def test_push_writes_several_shards_of_a_big_selection(hub, selection, monkeypatch):
    monkeypatch.setattr("im_datasets.hub.push.write_data_files", _in_small_shards(hub_module.write_data_files))
    push(selection)
    shards = [path for path in hub.store.paths(REPO) if path.startswith("kept/")]
    assert len(shards) == 8
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def _in_small_shards(write):
    return lambda *args, **options: write(*args, **options, shard_bytes=50)


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


def test_card_of_a_branch_loads_and_verifies_that_branch(hub, selection):
    push(selection)
    push(selection, revision="dev")
    card = card_of(hub, "dev")
    assert f'load_dataset("{REPO}", split="train", revision="dev")' in card
    assert f"`im-datasets verify {REPO} --revision dev`" in card
    assert "revision=" not in card_of(hub)
    assert not [check for check in verify(REPO, revision="dev", sample=0).checks if check.outcome == FAILED]


def test_another_name_of_a_licence_takes_no_link_from_the_card(hub, selection):
    card = b"---\nlicense: other\nlicense_name: old\nlicense_link: https://example.org/old\nlanguage: en\n---\n"
    hub.store.put(REPO, {"README.md": card})
    push_selected(selection, REPO, license="other")
    assert front_matter(card_of(hub))["license_link"] == "https://example.org/old"
    push_selected(selection, REPO, license="other", license_name="new")
    front = front_matter(card_of(hub))
    assert (front["license_name"], "license_link" in front) == ("new", False)


def test_push_without_a_record_says_so(hub, selection):
    push(replace(selection, record=None))
    assert "No record of the scoring came with this selection" in card_of(hub)
    assert json.loads(hub.store.read(REPO, "instructmining.json"))["record"] is None
    assert load_selection(REPO).record is None


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


def test_push_adds_to_a_collection_and_tags_the_card(hub, selection):
    from huggingface_hub import HfApi

    slug = HfApi().create_collection("Good rows").slug
    for _ in range(2):
        push(selection, collection=slug, tags=["curated"])
    assert [item["id"] for item in hub.store.collections[slug]["items"]] == [REPO]
    assert front_matter(card_of(hub))["tags"] == ["im-datasets", "instruction-mining", "curated"]


def test_push_looks_for_the_collection_before_it_writes(hub, selection):
    with pytest.raises(HubError, match="collection me/none-0: it is not there"):
        push(selection, collection="me/none-0")
    assert hub.store.repos == {}


def test_push_says_that_the_commit_is_there_when_the_collection_fails(hub, selection, waits):
    from huggingface_hub import HfApi

    slug = HfApi().create_collection("Good rows").slug
    hub.fail("POST", "/items", status=500, times=99)
    with pytest.raises(
        HubError, match=r"holds the selection \(commit \w{8}\), but adding it to the .*the Hub is in trouble"
    ):
        push(selection, collection=slug)
    assert len(commits(hub)) == 2
    hub.faults.clear()
    hub.fail("POST", "/items", status=500)
    assert not push(selection, collection=slug).changed
    assert [item["id"] for item in hub.store.collections[slug]["items"]] == [REPO]


def test_load_selection_says_when_the_hub_is_out_of_reach(hub, monkeypatch, waits):
    hub.fail("GET", "/revision/|/api/", drop=True, times=99)
    with pytest.raises(HubError, match="is not in the local cache, and the Hub cannot be reached"):
        load_selection("me/unreachable")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="is not in the local cache, and the Hub cannot be reached"):
        load_selection("me/unreachable")


def test_push_leaves_the_report_out_unless_asked(hub, selection):
    push(selection)
    assert "report.html" not in hub.store.paths(REPO)
    push(selection, report=True)
    assert b"Describe thing number" in hub.store.read(REPO, "report.html")
    assert not push(selection, report=True).changed
    push(selection)
    assert "report.html" not in hub.store.paths(REPO)


# Licence and language


def test_push_asks_for_licence_and_language(hub, selection):
    with pytest.raises(HubError, match=r"licence .* was not given.*--license.*language .* was not given.*--language"):
        push_selected(selection, REPO)
    assert ("dataset", REPO) not in hub.store.repos


def test_push_refuses_a_licence_the_hub_does_not_know(hub, selection):
    with pytest.raises(HubError, match="knows no licence 'nonsense'"):
        push_selected(selection, REPO, license="nonsense", language="en")


def test_push_takes_licence_and_terms_from_the_source_card(hub, selection):
    source = (
        b"---\nlicense: other\nlicense_name: our-terms\nlicense_link: https://example.org/terms\nlanguage: [en, de]\n"
    )
    sha = hub.store.put("someone/rows", {"README.md": source + b"task_categories: [text-generation]\n---\n"}).sha
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": sha})
    push_selected(replace(selection, record=record), REPO)
    front = front_matter(card_of(hub))
    assert (front["license"], front["license_name"]) == ("other", "our-terms")
    assert (front["language"], front["task_categories"]) == (["en", "de"], ["text-generation"])
    assert front["source_datasets"] == ["someone/rows"]
    assert "Licence that the source's own card states: other, our-terms" in card_of(hub)


def test_push_names_both_licences_where_they_differ(hub, selection):
    sha = hub.store.put("someone/rows", {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"}).sha
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": sha})
    push(replace(selection, record=record))
    assert front_matter(card_of(hub))["license"] == "cc-by-4.0"
    assert "own card states: cc-by-nc-4.0" in card_of(hub)


def test_push_takes_licence_from_the_card_that_mine_wrote(hub, selection):
    push_selected(selection, REPO, card="---\nlicense: mit\nlanguage: fr\npretty_name: Les meilleurs\n---\n")
    front = front_matter(card_of(hub))
    assert (front["license"], front["language"], front["pretty_name"]) == ("mit", ["fr"], "Les meilleurs")


# An existing repository is respected


def test_push_again_makes_no_commit(hub, selection):
    first = push(selection)
    uploads = len(hub.calls("PUT"))
    again = push(selection)
    assert not again.changed
    assert again.commit == first.commit
    assert len(commits(hub)) == 2
    assert len(hub.calls("PUT")) == uploads


def test_push_keeps_what_people_wrote_into_the_card(hub, selection):
    push(selection)
    card = card_of(hub)
    written = card.replace("license: cc-by-4.0\n", "license: cc-by-4.0\n# reviewed by me\nmy_field: [a, b]\n")
    written = (
        written.replace("# Selected rows", "# My rows\n\nBy hand.\n\n## Selected rows") + "\n## Thanks\n\nTo all.\n"
    )
    hub.store.put(REPO, {"README.md": written.encode(), "notes.txt": b"mine"})
    push(make_other(selection))
    after = card_of(hub)
    for text in ("# reviewed by me\nmy_field: [a, b]\n", "# My rows\n\nBy hand.\n", "\n## Thanks\n\nTo all.\n"):
        assert text in after
    assert "Kept 5 of 24 rows" in after
    assert "Kept 8 of 24 rows" not in after
    assert hub.store.read(REPO, "notes.txt") == b"mine"


def make_other(selection):
    return replace(make_selection(keep=5), record=selection.record)


def test_push_into_a_foreign_repository_adds_to_its_card(hub, selection):
    card = b"---\nlicense: mit\ntags: [poetry]\npretty_name: Poems\n---\n# Poems\n\nAll mine.\n"
    hub.store.put(REPO, {"README.md": card, "make_poems.py": b"..."})
    push_selected(selection, REPO, language="en")
    after = card_of(hub)
    front = front_matter(after)
    assert (front["license"], front["pretty_name"]) == ("mit", "Poems")
    assert front["tags"] == ["poetry", "im-datasets", "instruction-mining"]
    assert "# Poems\n\nAll mine.\n" in after
    assert "# Selected rows" not in after
    assert list(find_blocks(after)) == ["summary", "selection", "provenance"]
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_refuses_to_lose_an_edit_between_the_markers(hub, selection):
    push(selection)
    hub.store.put(REPO, {"README.md": card_of(hub).replace("Kept 8 of", "Kept nearly 8 of").encode()})
    with pytest.raises(ConflictError, match="summary was edited by hand; move the edit outside the markers"):
        push(make_other(selection))
    push(make_other(selection), overwrite=True)
    assert "Kept 5 of 24" in card_of(hub)


def test_push_refuses_to_replace_files_of_others(hub, selection):
    hub.store.put(REPO, {"kept/train-00000-of-00001.parquet": b"theirs"})
    with pytest.raises(ConflictError, match=r"kept/train-00000-of-00001\.parquet in the repository is not"):
        push(selection)
    assert push(selection, overwrite=True).changed


def test_push_refuses_to_replace_our_file_that_others_changed(hub, selection):
    push(selection)
    hub.store.put(REPO, {"kept/train-00000-of-00001.parquet": b"theirs"})
    with pytest.raises(ConflictError, match="is not as im-datasets left it"):
        push(make_other(selection))
    assert hub.store.read(REPO, "kept/train-00000-of-00001.parquet") == b"theirs"


@pytest.mark.parametrize(
    "path",
    ["data/a.jsonl.gz", "train.txt", "a.arrow", "data.zip", "images/a.PNG", "shards/a.tar", "tasks/one/task.toml"],
)
def test_push_refuses_to_take_data_of_any_format_from_sight(hub, selection, path):
    hub.store.put(REPO, {path: b"..."})
    with pytest.raises(ConflictError, match=f"holds {re.escape(path)}, which load_dataset gives now"):
        push(selection)


def test_push_into_a_repository_of_notes_hides_nothing(hub, selection):
    notes = ["LICENSE", "NOTES.md", "make.py", "pyproject.toml", "dataset_infos.json", ".cache/a.csv", "weights.bin"]
    hub.store.put(REPO, dict.fromkeys(notes, b"{}"))
    assert push(selection).changed
    assert set(notes) <= set(hub.store.paths(REPO))


def test_push_refuses_to_take_other_data_from_sight(hub, selection):
    hub.store.put(REPO, {"train.jsonl": b'{"a": 1}\n'})
    with pytest.raises(ConflictError, match=r"holds train\.jsonl, which load_dataset gives now"):
        push(selection)
    assert push(selection, overwrite=True).changed
    assert hub.store.read(REPO, "train.jsonl") == b'{"a": 1}\n'


@pytest.mark.parametrize("field", ["configs", "dataset_info"])
def test_push_refuses_where_a_file_overrules_the_card(hub, selection, field):
    hub.store.put(REPO, {".huggingface.yaml": f"{field}:\n- config_name: kept\n".encode()})
    for overwrite in (False, True):
        with pytest.raises(
            ConflictError, match=rf"\.huggingface\.yaml in the repository has {field}, which datasets reads"
        ):
            push(selection, overwrite=overwrite)
    hub.store.put(REPO, {".huggingface.yaml": b"viewer: false\n"})
    push(selection)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


def test_push_refuses_another_default_config(hub, selection, tmp_path):
    card = b"---\nconfigs:\n- config_name: full\n  default: true\n  data_files: full.parquet\n---\n"
    Dataset.from_dict({"a": [1]}).to_parquet(tmp_path / "full.parquet")
    hub.store.put(REPO, {"README.md": card, "full.parquet": (tmp_path / "full.parquet").read_bytes()})
    with pytest.raises(ConflictError, match="names 'full' as the default config"):
        push(selection)
    push(selection, overwrite=True)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()
    assert load_dataset(REPO, "full", split="train").to_list() == [{"a": 1}]


def test_push_refuses_to_make_another_config_unreadable(hub, selection):
    """`datasets` reads all configs of a repository in the format of the default one."""
    card = b"---\nconfigs:\n- config_name: full\n  data_files: full.jsonl\n---\n"
    hub.store.put(REPO, {"README.md": card, "full.jsonl": b'{"a": 1}\n'})
    with pytest.raises(ConflictError, match=r"config 'full' reads full\.jsonl"):
        push(selection)


def test_push_takes_out_what_it_published_before(hub, selection):
    push(selection, include_dropped=True)
    push(selection)
    assert hub.store.paths(REPO) == FILES
    assert [config["config_name"] for config in front_matter(card_of(hub))["configs"]] == ["kept"]
    assert front_matter(card_of(hub))["dataset_info"]["config_name"] == "kept"


# Somebody else's commit in between


def test_push_merges_anew_when_the_card_moved_meanwhile(hub, selection):
    push(selection)

    def write_thanks():
        hub.store.put(REPO, {"README.md": (card_of(hub) + "\n## Thanks\n").encode()})

    hub.fail("POST", "/commit/", before=write_thanks)
    assert push(make_other(selection)).changed
    assert "\n## Thanks\n" in card_of(hub)
    assert "Kept 5 of 24 rows" in card_of(hub)
    assert commits(hub)[1] == "by hand"


def test_push_refuses_when_another_selection_landed_meanwhile(hub, selection):
    hub.store.create("dataset", REPO)
    third = replace(make_selection(keep=3), record=selection.record)
    hub.fail("POST", "/commit/", before=lambda: push(third))
    with pytest.raises(ConflictError, match=r"somebody else changed .*kept/train-.* while this push"):
        push(make_other(selection))
    assert len(load_dataset(REPO, split="train")) == 3


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


# Failures


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_push_waits_longer_each_time_the_hub_fails(hub, selection, waits, status):
    hub.fail("POST", "/commit/", status=status, times=3)
    push(selection)
    assert 1 <= waits[0] < 2 <= waits[1] < 3 < 4 <= waits[2] < 5


def test_push_honours_retry_after(hub, selection, waits):
    hub.fail("POST", "/commit/", status=429, headers={"Retry-After": "17"})
    push(selection)
    assert waits == [17]


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


def test_push_gives_up_on_a_request_that_always_fails(hub, selection, waits):
    hub.fail("GET", "/revision/main", status=503, times=99)
    with pytest.raises(HubError, match="the Hub is in trouble; nothing is wrong here, try again later") as caught:
        push(selection)
    assert len(hub.calls("GET", "/revision/main")) == hub_errors.ATTEMPTS
    assert "http" not in str(caught.value)


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


def test_push_tries_an_upload_again(hub, selection, waits):
    hub.fail("PUT", "/storage/", status=503, times=2)
    push(selection)
    assert load_dataset(REPO, split="train").to_list() == selection.kept.to_list()


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "run: hf auth login"), (403, "may not write there.*--create-pr"), (413, "too much")]
)
def test_push_says_what_is_not_worth_a_retry(hub, selection, waits, status, advice):
    hub.fail("POST", "/commit/", status=status, times=99)
    with pytest.raises(HubError, match=advice):
        push(selection)
    assert len(hub.calls("POST", "/commit/")) == 1
    assert waits == []


def test_push_without_login_says_so(hub, selection, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        push(selection)
    with pytest.raises(HubError, match="hf auth login"):
        push(selection, "best")


def test_push_with_a_wrong_token_says_so(hub, selection, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_notatokenofanybodyatall")
    with pytest.raises(HubError, match="not accepted"):
        push(selection)


def test_push_offline_says_so(selection):
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push(selection)


def test_push_with_a_reading_token_says_so(hub, selection, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.login("me", READ))
    hub.store.create("dataset", REPO)
    with pytest.raises(HubError, match="may not write there"):
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


# Pull requests


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


def test_push_refuses_a_pull_request_against_a_branch(hub, selection):
    with pytest.raises(HubError, match="create_pr opens a pull request against main"):
        push(selection, create_pr=True, revision="v2")


# Dry run


def test_dry_run_shows_all_and_sends_nothing(hub, selection):
    push(selection)
    sent = len(hub.requests)
    pushed = push(make_other(selection), include_dropped=True, dry_run=True)
    assert {request.method for request in hub.requests[sent:]} <= {"GET", "HEAD"}
    assert {change.path: change.action for change in pushed.changes} == {
        "kept/train-00000-of-00001.parquet": "update",
        "dropped/train-00000-of-00001.parquet": "add",
        "figures/score_distribution.png": "update",
        "figures/indicators.png": "update",
        "README.md": "update",
        "instructmining.json": "update",
    }
    assert "-Kept 8 of 24 rows" in pushed.card_diff
    assert "+Kept 5 of 24 rows" in pushed.card_diff
    assert len(commits(hub)) == 2


def test_dry_run_of_a_new_repository_makes_none(hub, selection):
    assert push(selection, dry_run=True).dry_run
    assert hub.store.repos == {}


# Checked before anything is sent


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"columns": "some"}, "must be one of all, original"),
        ({"scores_only": True, "include_dropped": True}, "pass one of them"),
        ({"report": True, "scores_only": True}, "scores_only leaves all texts out, and the report shows some"),
        ({"repo": "a/b/c"}, "Repo id must be"),
        ({"repo": "me/.."}, "Cannot have|Repo id"),
    ],
)
def test_push_refuses_what_cannot_be_meant(hub, selection, options, match):
    with pytest.raises(HubError, match=match):
        push(selection, **options)
    assert hub.calls("POST") == []


def test_push_refuses_a_report_without_a_record(hub, selection):
    with pytest.raises(HubError, match="the report tells how the scores came about, and no record does"):
        push(replace(selection, record=None), report=True)
    assert hub.calls("POST") == []


def test_push_refuses_an_empty_selection(hub):
    with pytest.raises(HubError, match="keeps no row"):
        push(replace(make_selection(5, 0, duplicates=0), record=make_record()))


def test_push_private_to_a_public_repository_is_refused(hub, selection):
    push(selection)
    with pytest.raises(HubError, match="is there and public"):
        push(selection, private=True)


# Secrets and paths

PLANTED = "hf_plantedTokenThatMustNeverBeSeen0123"


def test_no_token_in_any_file_log_or_error(hub, selection, monkeypatch, caplog, capfd, waits):
    hub.store.users[PLANTED] = hub.store.users[hub.login()]
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    with caplog.at_level(logging.DEBUG):
        for status in (500, 429, 403):
            hub.fail("POST", "/commit/", status=status, times=1)
        with pytest.raises(HubError) as caught:
            push(selection)
        push(selection)
    assert hub.requests[-1].token == PLANTED
    written = b"".join(
        file.content + path.encode()
        for commit in hub.store.repos["dataset", REPO].commits.values()
        for path, file in commit.files.items()
    )
    told = caplog.text + str(caught.value) + repr(caught.value) + "".join(capfd.readouterr())
    assert PLANTED.encode() not in written
    assert PLANTED not in told


def test_an_error_repeats_no_token_that_the_hub_sends_back(hub, selection, monkeypatch):
    hub.store.users[PLANTED] = hub.store.users[hub.login()]
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    hub.fail("POST", "/commit/", status=403, message=f"Bearer {PLANTED} may not")
    with pytest.raises(HubError, match="Bearer hf_… may not") as caught:
        push(selection)
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


def test_no_option_takes_a_token():
    import inspect

    from im_datasets.cli import main as cli

    names = [*inspect.signature(push_selected).parameters, *inspect.signature(cli.push).parameters]
    assert not [name for name in names if "token" in name]


def with_secret(selection):
    texts = [("Describe it.", f"Row {n}.") for n in range(24)]
    texts[3] = ("What is my key?", "It is AKIAABCDEFGHIJKLMNOP, I think.")
    return replace(make_selection(24, 20, unscorable=0, texts=texts), record=selection.record)


def test_push_warns_before_it_makes_a_secret_public(hub, selection):
    def nothing_yet():
        assert caught

    hub.fail("POST", "/commit/", before=nothing_yet)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pushed = push(with_secret(selection))
    assert [str(warning.message) for warning in caught if warning.category is SecretsWarning] == [
        "about to be public: column 'output' holds what looks like an AWS access key in row 3; "
        "remove such rows before pushing"
    ]
    assert pushed.secrets[0].rows == [3]


def test_push_with_a_report_looks_through_the_dropped_rows_too(hub, selection):
    """The report shows rows of both sides, whichever are published as data."""
    texts = [("Describe it.", f"Row {n}.") for n in range(24)]
    texts[23] = ("What is my key?", "It is AKIAABCDEFGHIJKLMNOP, I think.")
    planted = replace(make_selection(24, 20, unscorable=0, texts=texts), record=selection.record)
    assert push(planted).secrets == []
    with pytest.warns(SecretsWarning, match="in row 23"):
        assert [finding.rows for finding in push(planted, report=True).secrets] == [[23]]


def test_push_to_a_private_repository_does_not_warn_of_secrets(hub, selection):
    assert push(with_secret(selection), private=True).secrets == []


def test_nothing_that_is_pushed_names_a_path_of_this_machine(hub, selection, tmp_path):
    folder = f"{tmp_path}/model"
    stated = {"Similarity": {"embedder": {"model": folder, "weights": "sha256:0a"}}, "Reward": {"model": folder}}
    record = make_record(
        rule=replace(make_record().rule, indicators=stated, provenance={"base_model": {"id": folder}}),
        command=["im-datasets", "mine", f"--rule={tmp_path}/rule.json", "--out", "x"],
        source={"kind": "file", "id": f"{tmp_path}/rows.jsonl", "files": [f"{tmp_path}/rows.jsonl"]},
        indicators=[replace(make_record().indicators[0], settings={"tokenizer": folder})],
    )
    push(replace(selection, record=record), report=True)
    for file in hub.store.repos["dataset", REPO].commit_at("main").files.values():
        assert str(tmp_path).encode() not in file.content
    assert b"--rule=rule.json" in hub.store.read(REPO, "report.html")
    assert "--rule=rule.json" in card_of(hub)


# What the client's errors come to


def test_seconds_to_wait_never_exceed_the_longest():
    error = SimpleNamespace(response=SimpleNamespace(status_code=429, headers={"Retry-After": "9999"}))
    failure = HubError("x")
    failure.response = error.response
    assert hub_errors.seconds_to_wait(failure, 1) == hub_errors.LONGEST_WAIT
    assert hub_errors.seconds_to_wait(HubError("x"), 20) == hub_errors.LONGEST_WAIT


def test_hostile_names_and_texts_are_pushed_and_read_back(hub, selection):
    """YAML, Markdown, HTML, emoji, right-to-left and very long names, of columns and in rows."""
    names = ["---\nlicense: mit\n---", "a: [b", "<script>alert(1)</script>", "🙂 " * 50, "\u202eמימין", "n" * 5000]
    texts = [*names, "<!-- im-datasets:end summary -->", "| a | b |\n|---|---|"]
    extra = Dataset.from_dict(dict.fromkeys(names, texts))
    kept = concatenate_datasets([extra, selection.kept], axis=1)
    record = make_record(source={"kind": "hub", "id": names[0], "files": names})
    push(replace(selection, kept=kept, record=record), pretty_name=names[0])
    assert load_dataset(REPO, split="train").to_list() == kept.to_list()
    assert front_matter(card_of(hub))["license"] == "cc-by-4.0"
    assert list(find_blocks(card_of(hub))) == ["summary", "selection", "provenance"]


def test_rows_with_features_of_every_kind_survive(hub, selection):
    from datasets import Features, List, Value

    rows = len(selection.kept)
    extra = Dataset.from_dict(
        {
            "messages": [[{"role": "user", "content": f"Größe {n} 🙂"}] for n in range(rows)],
            "stars": list(range(rows)),
        },
        features=Features(
            {"messages": List({"role": Value("string"), "content": Value("string")}), "stars": Value("int8")}
        ),
    )
    kept = concatenate_datasets([extra, selection.kept], axis=1)
    push(replace(selection, kept=kept))
    back = load_dataset(REPO, split="train")
    assert back.features == kept.features
    assert back.to_list() == kept.to_list()


def test_push_names_the_content_of_each_config_and_writes_it_once(hub, selection):
    push(selection, include_dropped=True)
    files = hub.store.repos["dataset", REPO].commit_at("main").files
    configs = front_matter(card_of(hub))["configs"]
    told = {config["config_name"]: config["description"] for config in configs}
    assert told == {
        name: f"content sha256 {files[f'{name}/train-00000-of-00001.parquet'].sha256}" for name in ("kept", "dropped")
    }
    assert not push(selection, include_dropped=True).changed


def test_push_of_a_selection_that_dropped_nothing_has_no_config_for_it(hub):
    whole = replace(make_selection(6, 6, unscorable=0, duplicates=0), record=make_record())
    push(whole, include_dropped=True, include_scores=True)
    assert [config["config_name"] for config in front_matter(card_of(hub))["configs"]] == ["kept", "scores"]
    found = load_selection(REPO)
    assert (len(found.kept), len(found.dropped)) == (6, 0)


def test_push_refuses_a_language_that_the_hub_does_not_know(hub, selection):
    with pytest.raises(HubError, match="knows no language 'klingonish language'; pass its code"):
        push_selected(selection, REPO, license="mit", language=["en", "klingonish language"])
