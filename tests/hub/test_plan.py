"""What a push changes of what is there, and what it leaves to others."""

from dataclasses import replace

import pytest
from datasets import load_dataset
from pushing import FILES, REPO, card_of, commits, front_matter, make_other, push
from report_sample import make_selection

from im_datasets.common.errors import ConflictError
from im_datasets.hub.plan import Action, Change, Plan, Snapshot
from im_datasets.report.configs import Published

pytestmark = pytest.mark.usefixtures("quick_figures")


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


def test_push_takes_out_what_it_published_before(hub, selection):
    push(selection, include_dropped=True)
    push(selection)
    assert hub.store.paths(REPO) == FILES
    assert [config["config_name"] for config in front_matter(card_of(hub))["configs"]] == ["kept"]
    assert front_matter(card_of(hub))["dataset_info"]["config_name"] == "kept"


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


def planned(oids, contents, **options):
    return Plan.between(Snapshot(sha="a", oids=oids), contents, **options)


OLD, NEW = Published.of(b"old"), Published.of(b"new")


def test_plan_compares_by_either_digest():
    plan = planned({"a": NEW.git_sha1, "b": NEW.sha256, "c": OLD.git_sha1}, dict.fromkeys("abcd", b"new"))
    assert [(change.path, change.action, change.size) for change in plan.changes] == [
        ("a", "keep", 3),
        ("b", "keep", 3),
        ("c", "update", 3),
        ("d", "add", 3),
    ]
    assert [change.path for change in plan.writes] == ["c", "d"]


def test_plan_deletes_what_is_there_and_obsolete(tmp_path):
    (tmp_path / "a").write_bytes(b"new")
    plan = planned({"b": "1"}, {"a": tmp_path / "a"}, obsolete=["b", "c"])
    assert plan.changes == [Change("a", Action.ADD, 3), Change("b", Action.DELETE, 0)]
    assert plan.is_carried_out_in({"a": NEW.sha256})
    assert not plan.is_carried_out_in({"a": NEW.sha256, "b": "1"})
    assert not plan.is_carried_out_in({})


def test_foreign_files_are_those_that_are_not_as_pushed():
    plan = planned({"a": "1", "b": "2", "c": "3", "d": "4"}, dict.fromkeys("abce", b""), obsolete="d", merged="c")
    assert plan.foreign({"a": ["1"], "b": ["1", None]}) == ["b", "d"]


def test_a_plan_is_refused_where_its_files_were_touched():
    plan = planned({"a": "1", "b": "2", "c": "3"}, dict.fromkeys("abc", b""), merged="c")
    plan.check_untouched(Snapshot(oids={"a": "1", "b": "2", "c": "9"}))
    with pytest.raises(ConflictError, match=r"somebody else changed b while this push was under way \(commit a\)"):
        plan.check_untouched(Snapshot(oids={"a": "1", "b": "9", "c": "3"}))
