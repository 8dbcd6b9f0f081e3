"""Pushing with the real client to a Hub on this machine: what is asked, what is sent, what is warned of."""

import warnings
from dataclasses import replace

import pytest
from datasets import Dataset, concatenate_datasets, load_dataset
from pushing import FILES, REPO, card_of, commits, front_matter, push, same
from report_sample import make_record, make_selection

from im_datasets import load_selection, push_selected
from im_datasets.common.errors import HubError
from im_datasets.hub import push as hub_module
from im_datasets.hub.push import SecretsWarning

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_push_makes_one_commit_that_load_dataset_opens(hub, selection):
    pushed = push(selection)
    assert commits(hub) == ["8 rows selected by im-datasets", "initial commit"]
    assert hub.store.paths(REPO) == FILES
    assert pushed.commit == hub.store.repos["dataset", REPO].refs["main"]
    rows = load_dataset(REPO, split="train")
    assert rows.features == selection.kept.features
    assert rows.to_list() == selection.kept.to_list()
    assert list(load_dataset(REPO, split="train", streaming=True)) == rows.to_list()


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


def test_push_refuses_a_licence_the_hub_does_not_know(hub, selection):
    with pytest.raises(HubError, match="knows no licence 'nonsense'"):
        push_selected(selection, REPO, license="nonsense", language="en")


def test_push_refuses_a_pull_request_against_a_branch(hub, selection):
    with pytest.raises(HubError, match="create_pr opens a pull request against main"):
        push(selection, create_pr=True, revision="v2")


def test_dry_run_of_a_new_repository_makes_none(hub, selection):
    assert push(selection, dry_run=True).dry_run
    assert hub.store.repos == {}


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
    places = {warning.filename for warning in caught if warning.category is SecretsWarning}
    assert places == {push.__code__.co_filename}
    assert pushed.secrets[0].rows == [3]
    with pytest.warns(SecretsWarning, match="in row 3") as caught:
        push(with_secret(selection), "me/other", dry_run=True)
    places = {warning.filename for warning in caught if warning.category is SecretsWarning}
    assert places == {push.__code__.co_filename}


@pytest.mark.parametrize(
    ("given", "command", "files"),
    [
        ({"license_link": "https://me:s3cret-word@example.org/licence"}, None, ["README.md", "instructmining.json"]),
        ({"tags": ["hf_" + "aB3" * 12]}, None, ["README.md", "instructmining.json"]),
        ({"pretty_name": "Rows of " + "hf_" + "aB3" * 12}, None, ["README.md", "instructmining.json"]),
        ({}, ["im-datasets", "mine", "x", "--revision", "hf_" + "aB3" * 12], ["instructmining.json"]),
    ],
)
def test_push_warns_of_secrets_in_all_that_is_published(hub, selection, given, command, files):
    told = replace(selection, record=replace(selection.record, command=command))
    with pytest.warns(SecretsWarning, match="take it out of what the card or the run states") as caught:
        pushed = push_selected(told, REPO, **{"license": "other", "license_name": "x", "language": "en"} | given)
    assert {finding.column for finding in pushed.secrets} >= set(files)
    assert not [warning for warning in caught if "aB3" in str(warning.message) or "s3cret" in str(warning.message)]


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


def test_push_of_a_selection_that_dropped_nothing_has_no_config_for_it(hub):
    whole = replace(make_selection(6, 6, unscorable=0, duplicates=0), record=make_record())
    push(whole, include_dropped=True, include_scores=True)
    assert [config["config_name"] for config in front_matter(card_of(hub))["configs"]] == ["kept", "scores"]
    found = load_selection(REPO)
    assert (len(found.kept), len(found.dropped)) == (6, 0)


def test_push_refuses_a_language_that_the_hub_does_not_know(hub, selection):
    with pytest.raises(HubError, match="knows no language 'klingonish language'; pass its code"):
        push_selected(selection, REPO, license="mit", language=["en", "klingonish language"])
